//! Endpoints.

use pintle_api::names::{dns1123_subdomain, qualified_name};
use pintle_schema::cursor::{Cursor, Errors};

use super::service::endpoint_ip;
use crate::kinds::table::{self, Column, text};
use crate::kinds::{Ctx, Strategy, checks, meta, value};

/// The strategy of endpoints.
pub static ENDPOINTS: Strategy = Strategy {
    create_on_update: true,
    full_meta_on_update: true,
    validate,
    columns: &[Column::NAME, text("Endpoints", "@Endpoints.subsets"), Column::AGE],
    row: |o, now| vec![table::name(o), addresses(o).into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

fn validate(_: &Ctx<'_>, endpoints: &Cursor<'_>, old: Option<&Cursor<'_>>, errors: &mut Errors) {
    let subsets = endpoints.get("subsets");
    if old.is_some_and(|o| value::same(o.get("subsets").value(), subsets.value())) {
        return;
    }
    for subset in subsets.items() {
        let lists = [subset.get("addresses"), subset.get("notReadyAddresses")];
        if lists.iter().all(Cursor::is_empty) {
            errors.required(&subset, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in &lists {
            for address in list.items() {
                if !address.get("hostname").is_empty() {
                    checks::label(&address.get("hostname"), errors);
                }
                let node = address.get("nodeName");
                if node.is_present() {
                    meta::invalid_each(&node, dns1123_subdomain(node.str()), errors);
                }
                endpoint_ip(&address.get("ip"), errors);
            }
        }
        let ports = subset.get("ports");
        for port in ports.items() {
            let name = port.get("name");
            if !name.is_empty() {
                checks::label(&name, errors);
            } else if ports.len() > 1 {
                errors.required(&name, "");
            }
            let number = port.get("port");
            for message in checks::port_number(number.int()) {
                errors.invalid_value(&number, number.int(), message);
            }
            checks::one_of(&port.get("protocol"), &["SCTP", "TCP", "UDP"], true, errors);
            let app = port.get("appProtocol");
            if app.is_present() {
                meta::invalid_each(&app, qualified_name(app.str()), errors);
            }
        }
    }
}

fn addresses(endpoints: &Cursor<'_>) -> String {
    if endpoints.get("subsets").is_empty() {
        return "<none>".to_owned();
    }
    let mut list = Vec::new();
    for subset in endpoints.get("subsets").items() {
        let ips: Vec<&str> = subset.get("addresses").items().map(|a| a.get("ip").str()).collect();
        if subset.get("ports").is_empty() {
            list.extend(ips.into_iter().map(str::to_owned));
            continue;
        }
        for port in subset.get("ports").items() {
            let port = port.get("port").int();
            list.extend(
                ips.iter().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    table::first_three(list, "")
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing;
    use serde_json::json;

    #[test]
    fn rows() {
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "e", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 443}]}],
        });
        assert_eq!(testing::row(&endpoints, 5), ["e", "10.0.0.1:80,[fd00::1]:80,10.0.0.1:443 + 1 more...", "5s"]);
        assert_eq!(testing::row(&testing::changed(&endpoints, "subsets", json!(null)), 5)[1], "<none>");
    }
}
