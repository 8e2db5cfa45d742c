//! Validation of volumes.

use std::collections::{HashMap, HashSet};

use pintle_api::names::dns1123_subdomain;
use pintle_schema::cursor::{Cursor, Errors};
use serde_json::Value;

use super::env::{field_ref, resource_field_ref};
use super::spec::Rules;
use crate::kinds::core::{signer, volume};
use crate::kinds::{checks, meta};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// The fields of the object that a file of a downward API volume may show.
const DOWNWARD_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

type Check = fn(&Cursor<'_>, &Rules<'_>, &mut Errors);

/// A kind of volume: its field, the name it has in paths where that differs, the fields it must have, and what more
/// there is to check. In upstream's order, which says which of several is one too many.
const SOURCES: &[(&str, &str, &[&str], Check)] = &[
    ("emptyDir", "", &[], |v, _, e| {
        if v.get("sizeLimit").str().starts_with('-') {
            e.forbidden(v.get("sizeLimit"), "SizeLimit field must be a valid resource quantity");
        }
    }),
    ("hostPath", "", &[], |v, _, e| host_path(v, e)),
    ("gitRepo", "", &["repository"], |v, _, e| descending(&v.get("directory"), e)),
    ("gcePersistentDisk", "persistentDisk", &["pdName"], |v, _, e| partition(v, e)),
    ("awsElasticBlockStore", "", &["volumeID"], |v, _, e| partition(v, e)),
    ("secret", "", &["secretName"], |v, _, e| keys(v, e)),
    ("nfs", "", &["server", "path"], |v, _, e| absolute(&v.get("path"), e)),
    ("iscsi", "", &["targetPortal"], |v, _, e| iscsi(v, e)),
    ("glusterfs", "", &["endpoints", "path"], |_, _, _| {}),
    ("flocker", "", &[], |v, _, e| flocker(v, e)),
    ("persistentVolumeClaim", "", &["claimName"], |_, _, _| {}),
    ("rbd", "", &["monitors", "image"], |_, _, _| {}),
    ("cinder", "", &["volumeID"], |v, _, e| secret_ref(v, e)),
    ("cephfs", "", &["monitors"], |_, _, _| {}),
    ("quobyte", "", &["registry", "volume"], |_, _, _| {}),
    ("downwardAPI", "", &[], |v, _, e| {
        mode(&v.get("defaultMode"), e);
        for file in v.get("items").items() {
            downward_file(&file, v, e);
        }
    }),
    ("fc", "", &[], |v, _, e| fibre_channel(v, e)),
    ("flexVolume", "", &["driver"], |v, _, e| flex_options(v, e)),
    ("configMap", "", &["name"], |v, _, e| keys(v, e)),
    ("azureFile", "", &["secretName", "shareName"], |_, _, _| {}),
    ("vsphereVolume", "", &["volumePath"], |_, _, _| {}),
    ("photonPersistentDisk", "", &["pdID"], |_, _, _| {}),
    ("portworxVolume", "", &["volumeID"], |_, _, _| {}),
    ("azureDisk", "", &["diskName", "diskURI"], |v, _, e| azure_disk(v, e)),
    ("storageos", "", &["volumeName"], |v, _, e| secret_ref(v, e)),
    ("projected", "", &[], |v, _, e| projected(v, e)),
    ("scaleIO", "", &["gateway", "system", "volumeName"], |_, _, _| {}),
    ("csi", "", &[], |v, _, e| csi(v, e)),
    ("ephemeral", "", &[], |v, _, e| ephemeral(v, e)),
    ("image", "", &[], |v, rules, e| {
        if rules.is_pod && v.get("reference").is_empty() {
            e.required(v.get("reference"), "");
        }
        checks::one_of(&v.get("pullPolicy"), &["Always", "IfNotPresent", "Never"], true, e);
    }),
];

/// Checks the volumes; those without an error can be mounted.
pub(super) fn volumes<'a>(list: &Cursor<'a>, rules: &Rules<'_>, errors: &mut Errors) -> HashMap<&'a str, &'a Value> {
    let mut good: HashMap<&str, &Value> = HashMap::new();
    let pod = rules.pod_name;
    let made: HashSet<String> = list
        .items()
        .filter(|v| !pod.is_empty() && v.get("ephemeral").is_present())
        .map(|v| format!("{pod}-{}", v.get("name").str()))
        .collect();
    for volume in list.items() {
        let before = errors.len();
        source(&volume, rules, errors);
        let name = volume.get("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else {
            checks::label(&name, errors);
        }
        if good.contains_key(name.str()) {
            errors.duplicate(&name, name.str());
        }
        if errors.len() == before {
            good.insert(name.str(), volume.value().unwrap_or(&Value::Null));
        }
        let claim = volume.get("persistentVolumeClaim").get("claimName");
        if made.contains(claim.str()) {
            errors.invalid(&claim, "must not reference a PVC that gets created for an ephemeral volume");
        }
    }
    good
}

fn source(volume: &Cursor<'_>, rules: &Rules<'_>, errors: &mut Errors) {
    let mut found = 0;
    for (field, shown, required, check) in SOURCES {
        let source = volume.get(field);
        if source.is_absent() {
            continue;
        }
        found += 1;
        if found > 1 {
            errors.forbidden(&source, "may not specify more than 1 volume type");
            continue;
        }
        let mut wrong = Errors::new();
        for name in *required {
            if source.get(name).is_empty() {
                wrong.required(source.get(name), "");
            }
        }
        check(&source, rules, &mut wrong);
        let shown = if shown.is_empty() { field } else { shown };
        meta::moved(wrong, &source.path(), &format!("{volume}.{shown}"), errors);
        let name = volume.get("name");
        if *field == "iscsi" && source.get("initiatorName").is_present() {
            let length = name.str().len() + 1 + source.get("targetPortal").str().len();
            if length > 64 {
                errors.invalid(
                    &name,
                    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.",
                );
            }
        }
        if *field == "ephemeral" && !rules.pod_name.is_empty() && !name.str().is_empty() {
            let claim = format!("{}-{}", rules.pod_name, name.str());
            for message in dns1123_subdomain(&claim) {
                errors.invalid(&name, format!("PVC name \"{claim}\": {message}"));
            }
        }
    }
    if found == 0 {
        errors.required(volume, "must specify a volume type");
    }
}

fn mode(at: &Cursor<'_>, errors: &mut Errors) {
    if !(0..=0o777).contains(&at.int()) {
        errors.invalid(at, FILE_MODE);
    }
}

/// `defaultMode` and `items` of a secret or config map.
fn keys(source: &Cursor<'_>, errors: &mut Errors) {
    mode(&source.get("defaultMode"), errors);
    for item in source.get("items").items() {
        key_to_path(&item, errors);
    }
}

fn key_to_path(item: &Cursor<'_>, errors: &mut Errors) {
    for field in ["key", "path"] {
        if item.get(field).is_empty() {
            errors.required(item.get(field), "");
        }
    }
    local_path(&item.get("path"), errors);
    mode(&item.get("mode"), errors);
}

fn absolute(path: &Cursor<'_>, errors: &mut Errors) {
    if !path.str().starts_with('/') {
        errors.invalid(path, "must be an absolute path");
    }
}

/// A path that does not leave where it starts.
pub fn descending(path: &Cursor<'_>, errors: &mut Errors) {
    if path.str().starts_with('/') {
        errors.invalid(path, "must be a relative path");
    }
    no_backsteps(path, errors);
}

/// A path without `..`.
pub fn no_backsteps(path: &Cursor<'_>, errors: &mut Errors) {
    if path.str().split('/').any(|part| part == "..") {
        errors.invalid(path, "must not contain '..'");
    }
}

/// A descending path that is none of the names that begin with two dots.
fn local_path(path: &Cursor<'_>, errors: &mut Errors) {
    descending(path, errors);
    if path.str().starts_with("..") && !path.str().starts_with("../") {
        errors.invalid(path, "must not start with '..'");
    }
}

/// A host path.
pub fn host_path(source: &Cursor<'_>, errors: &mut Errors) {
    const TYPES: &[&str] =
        &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let path = source.get("path");
    if path.is_empty() {
        // Upstream returns here.
        return errors.required(&path, "");
    }
    no_backsteps(&path, errors);
    let kind = source.get("type");
    if kind.is_present() && !TYPES.contains(&kind.str()) {
        errors.not_supported(&kind, kind.str(), TYPES);
    }
}

fn partition(source: &Cursor<'_>, errors: &mut Errors) {
    let partition = source.get("partition");
    if !(0..=255).contains(&partition.int()) {
        errors.invalid(&partition, checks::between(1, 255));
    }
}

/// What an iSCSI volume must have beside its portal.
pub fn iscsi(source: &Cursor<'_>, errors: &mut Errors) {
    let iqn = source.get("iqn");
    if iqn.is_empty() {
        errors.required(&iqn, "");
    } else if let Some(message) = iscsi_name(iqn.str()) {
        errors.invalid(&iqn, message);
    }
    let lun = source.get("lun");
    if !(0..=255).contains(&lun.int()) {
        errors.invalid(&lun, checks::between(0, 255));
    }
    let chap = source.get("chapAuthDiscovery").bool() || source.get("chapAuthSession").bool();
    if chap && source.get("secretRef").is_absent() {
        errors.required(source.get("secretRef"), "");
    }
    let initiator = source.get("initiatorName");
    if initiator.is_present()
        && let Some(message) = iscsi_name(initiator.str())
    {
        errors.invalid_value(source.get("initiatorname"), initiator.str(), message);
    }
}

fn iscsi_name(name: &str) -> Option<&'static str> {
    let alnum = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let good = match name.split_at_checked(3) {
        Some(("iqn", rest)) => iqn(rest),
        Some(("eui", rest)) => rest.len() == 17 && alnum(&rest[1..], 16),
        Some(("naa", rest)) => rest.len() == 33 && alnum(&rest[1..], 32),
        _ => return Some("must be valid format starting with iqn, eui, or naa"),
    };
    (!good).then_some("must be valid format")
}

/// `.2001-04.com.example[.more]:name`
fn iqn(rest: &str) -> bool {
    let Some((head, name)) = rest.split_once(':') else { return false };
    let mut parts = head.splitn(3, '.');
    let (empty, date, domain) = (parts.next(), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let date = date.as_bytes();
    empty == Some("")
        && date.len() == 7
        && date.iter().enumerate().all(|(i, b)| if i == 4 { *b == b'-' } else { b.is_ascii_digit() })
        && !domain.is_empty()
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && !name.is_empty()
        && !name.contains([',', ';', '*', '&', '$', '|', ' ', '\t', '\n'])
}

fn flocker(source: &Cursor<'_>, errors: &mut Errors) {
    let (name, uuid) = (source.get("datasetName"), source.get("datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => errors.required(source, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            errors.invalid_value(source, "resource", "datasetName and datasetUUID can not be specified simultaneously");
        }
        _ => {}
    }
    if name.str().contains('/') {
        errors.invalid(&name, "must not contain '/'");
    }
}

fn secret_ref(source: &Cursor<'_>, errors: &mut Errors) {
    let secret = source.get("secretRef");
    if secret.is_present() && secret.get("name").is_empty() {
        errors.required(secret.get("name"), "");
    }
}

/// What a fibre channel volume must have.
pub fn fibre_channel(source: &Cursor<'_>, errors: &mut Errors) {
    let (targets, wwids) = (source.get("targetWWNs"), source.get("wwids"));
    match (targets.is_empty(), wwids.is_empty()) {
        (true, true) => errors.required(&targets, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => errors.invalid(&targets, "targetWWNs and wwids can not be specified simultaneously"),
        _ => {}
    }
    let lun = source.get("lun");
    if !targets.is_empty() && lun.is_absent() {
        errors.required(&lun, "lun is required if targetWWNs is specified");
    } else if !targets.is_empty() && !(0..=255).contains(&lun.int()) {
        errors.invalid(&lun, checks::between(0, 255));
    }
}

/// The options of a flex volume may not use Kubernetes' own names.
pub fn flex_options(source: &Cursor<'_>, errors: &mut Errors) {
    for (key, option) in source.get("options").entries() {
        let namespace = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            errors.invalid_value(&option, key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

/// What an Azure disk must have beside its name and URI.
pub fn azure_disk(source: &Cursor<'_>, errors: &mut Errors) {
    checks::one_of(&source.get("cachingMode"), &["None", "ReadOnly", "ReadWrite"], false, errors);
    checks::one_of(&source.get("kind"), &["Dedicated", "Managed", "Shared"], false, errors);
    let (kind, uri) = (source.get("kind"), source.get("diskURI"));
    let (prefix, form) = if kind.str() == "Managed" {
        (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        )
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    if kind.is_present() && !uri.str().starts_with(prefix) {
        errors.not_supported(&uri, uri.str(), &[form]);
    }
}

fn csi(source: &Cursor<'_>, errors: &mut Errors) {
    volume::csi_driver_name(&source.get("driver"), errors);
    let secret = source.get("nodePublishSecretRef");
    let name = secret.get("name");
    if secret.is_present() && name.is_empty() {
        errors.required(&name, "");
    } else if secret.is_present() {
        for message in dns1123_subdomain(name.str()) {
            errors.invalid_value(source.get("name"), name.str(), message);
        }
    }
}

fn ephemeral(source: &Cursor<'_>, errors: &mut Errors) {
    let template = source.get("volumeClaimTemplate");
    if template.is_absent() {
        return errors.required(&template, "");
    }
    let metadata = template.get("metadata");
    meta::annotations(&metadata.get("annotations"), errors);
    meta::labels(&metadata.get("labels"), errors);
    for (field, value) in metadata.object().into_iter().flatten() {
        if !matches!(field.as_str(), "annotations" | "labels") && !value.is_null() {
            errors.forbidden(metadata.get(field), "cannot be set");
        }
    }
    volume::claim_spec(&template.get("spec"), errors);
}

fn downward_file(file: &Cursor<'_>, source: &Cursor<'_>, errors: &mut Errors) {
    // Upstream reports the files at their volume, without an index.
    let at = |field: &'static str| format!("{source}.{field}");
    if file.get("path").is_empty() {
        errors.required(at("path"), "");
    }
    let mut found = Errors::new();
    local_path(&file.get("path"), &mut found);
    let (field, resource) = (file.get("fieldRef"), file.get("resourceFieldRef"));
    match (field.is_present(), resource.is_present()) {
        (true, both) => {
            field_ref(&field, DOWNWARD_FIELDS, &mut found);
            if both {
                errors.invalid_value(
                    source,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        }
        (false, true) => resource_field_ref(&resource, true, &mut found),
        (false, false) => errors.required(source, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(&file.get("mode"), &mut found);
    meta::moved(found, &file.path(), &source.path(), errors);
}

fn projected(volume: &Cursor<'_>, errors: &mut Errors) {
    mode(&volume.get("defaultMode"), errors);
    let mut paths: Vec<String> = Vec::new();
    let mut once = |path: &str, value: &str, errors: &mut Errors| {
        if path.is_empty() {
            return;
        }
        if paths.iter().any(|p| p == path) {
            errors.invalid_value(volume, value, "conflicting duplicate paths");
        } else {
            paths.push(path.to_owned());
        }
    };
    for source in volume.get("sources").items() {
        let mut kinds = 0;
        for field in ["secret", "configMap"] {
            let part = source.get(field);
            if part.is_absent() {
                continue;
            }
            kinds += 1;
            let name = part.get("name");
            if name.is_empty() {
                errors.required(&name, "");
            }
            for item in part.get("items").items() {
                key_to_path(&item, errors);
                once(item.get("path").str(), name.str(), errors);
            }
        }
        let downward = source.get("downwardAPI");
        if downward.is_present() {
            kinds += 1;
            for file in downward.get("items").items() {
                downward_file(&file, &downward, errors);
                once(file.get("path").str(), file.get("path").str(), errors);
            }
        }
        let token = source.get("serviceAccountToken");
        if token.is_present() {
            kinds += 1;
            let expiration = token.get("expirationSeconds");
            if expiration.int() < 600 {
                errors.invalid(&expiration, "may not specify a duration less than 10 minutes");
            }
            if expiration.int() > 1 << 32 {
                errors.invalid(&expiration, "may not specify a duration larger than 2^32 seconds");
            }
            // Upstream reports the path at the volume.
            let path = token.get("path");
            let mut found = Errors::new();
            if path.is_empty() {
                found.required(&path, "");
            } else {
                local_path(&path, &mut found);
            }
            meta::moved(found, &path.path(), &format!("{volume}.path"), errors);
        }
        let bundle = source.get("clusterTrustBundle");
        if bundle.is_present() {
            kinds += 1;
            trust_bundle(&bundle, errors);
            let path = bundle.get("path").str();
            once(path, path, errors);
        }
        let certificate = source.get("podCertificate");
        if certificate.is_present() {
            kinds += 1;
            pod_certificate(&certificate, errors);
            for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                let path = certificate.get(field).str();
                once(path, path, errors);
            }
        }
        if kinds > 1 {
            errors.forbidden(&source, "may not specify more than 1 volume type per source");
        }
    }
}

fn trust_bundle(bundle: &Cursor<'_>, errors: &mut Errors) {
    let (name, signer, selector) = (bundle.get("name"), bundle.get("signerName"), bundle.get("labelSelector"));
    match (name.is_present(), signer.is_present()) {
        (true, true) => errors.invalid(bundle, "only one of name and signerName may be used"),
        (true, false) => {
            if name.is_empty() {
                errors.required(&name, "must be a valid object name");
            }
            for message in signer::trust_bundle_name(name.str()) {
                errors.invalid(&name, format!("not a valid clustertrustbundlename: {message}"));
            }
            if selector.is_present() {
                errors.invalid(&selector, "labelSelector must be unset if name is specified");
            }
        }
        (false, true) => {
            if signer.is_empty() {
                errors.required(&signer, "must be a valid signer name");
            }
            signer::name(&signer, errors);
            meta::label_selector(&selector, false, errors);
        }
        (false, false) => errors.required(bundle, "either name or signerName must be specified"),
    }
    if bundle.get("path").is_empty() {
        errors.required(bundle.get("path"), "");
    }
    local_path(&bundle.get("path"), errors);
}

fn pod_certificate(certificate: &Cursor<'_>, errors: &mut Errors) {
    const KEYS: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    signer::name(&certificate.get("signerName"), errors);
    let kind = certificate.get("keyType");
    if !KEYS.contains(&kind.str()) {
        errors.not_supported(&kind, kind.str(), KEYS);
    }
    let expiration = certificate.get("maxExpirationSeconds");
    if let Some(seconds) = expiration.opt_int() {
        let max = if signer::is_kubernetes(certificate.get("signerName").str()) { 86400 } else { 7_862_400 };
        if seconds < 3600 {
            errors.invalid(&expiration, "if provided, maxExpirationSeconds must be >= 3600");
        }
        if seconds > max {
            errors.invalid(&expiration, format!("if provided, maxExpirationSeconds must be <= {max}"));
        }
    }
    let paths = ["credentialBundlePath", "keyPath", "certificateChainPath"].map(|f| certificate.get(f));
    for path in paths.iter().filter(|p| !p.is_empty()) {
        local_path(path, errors);
    }
    if paths.iter().all(Cursor::is_empty) {
        errors.required(certificate, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
}
