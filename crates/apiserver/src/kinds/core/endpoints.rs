//! Endpoints.

use pintle_schema::cursor::Cursor;

use crate::kinds::Strategy;
use crate::kinds::table::{self, Column, text};

/// The strategy of endpoints.
pub static ENDPOINTS: Strategy = Strategy {
    create_on_update: true,
    columns: &[Column::NAME, text("Endpoints", "@Endpoints.subsets"), Column::AGE],
    row: |o, now| vec![table::name(o), addresses(o).into(), table::age(o, now)],
    ..Strategy::DEFAULT
};

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
