//! Parameters of operations.

use serde_json::{Map, Value, json};

/// What a parameter holds, and what it is for.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed",
);
const FIELD_MANAGER: Parameter = (
    "fieldManager",
    "string",
    "A name associated with the actor or entity that is making these changes: at most 128 printable characters.",
);
const APPLY_MANAGER: Parameter = (
    "fieldManager",
    "string",
    "A name associated with the actor or entity that is making these changes: at most 128 printable characters. Required for apply requests (application/apply-patch), optional for other types of patch.",
);
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do with unknown or duplicate fields in the request. Valid values are: - Ignore: drop unknown fields, and all but the last of a duplicate field. - Warn: the same, with a warning for each; the default. - Strict: fail the request with a BadRequest error that names them all.",
);
const FORCE: Parameter = (
    "force",
    "boolean",
    "Take conflicting fields owned by others in an apply request. Must be unset for other types of patch.",
);
const PRETTY: Parameter = (
    "pretty",
    "string",
    "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).",
);

/// Of `POST` and `PUT`.
pub(super) const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, PRETTY];
/// Of `PATCH`.
pub(super) const PATCH: &[Parameter] = &[DRY_RUN, APPLY_MANAGER, FIELD_VALIDATION, FORCE, PRETTY];
/// Of `GET`.
pub(super) const READ: &[Parameter] = &[PRETTY];

const GRACE: Parameter = (
    "gracePeriodSeconds",
    "integer",
    "The duration in seconds before the object should be deleted; zero means at once. Without it the default of the kind is used.",
);
const UNSAFE: Parameter = (
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "boolean",
    "If true, an object that cannot be read from storage is removed from there without regard to finalizers and preconditions. This may break the cluster. Defaults to false.",
);
const ORPHAN: Parameter = (
    "orphanDependents",
    "boolean",
    "Deprecated: use propagationPolicy. Whether dependent objects are orphaned. Only one of the two may be set.",
);
const PROPAGATION: Parameter = (
    "propagationPolicy",
    "string",
    "Whether and how garbage collection is performed. Acceptable values are: 'Orphan' - orphan the dependents; 'Background' - delete the dependents in the background; 'Foreground' - delete all dependents first.",
);

/// Of `DELETE`.
pub(super) const DELETE: &[Parameter] = &[DRY_RUN, GRACE, UNSAFE, ORPHAN, PRETTY, PROPAGATION];

const BOOKMARKS: Parameter = (
    "allowWatchBookmarks",
    "boolean",
    "Ask for watch events of type \"BOOKMARK\", which tell how far the watch is. Of no effect but for a watch.",
);
const CONTINUE: Parameter = (
    "continue",
    "string",
    "Where to go on with a list: the value that the metadata of the part before gave. When it has expired the answer is a 410 ResourceExpired error with a token to go on from inconsistently. Not for a watch.",
);
const FIELDS: Parameter = (
    "fieldSelector",
    "string",
    "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
);
const LABELS: Parameter = (
    "labelSelector",
    "string",
    "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
);
const LIMIT: Parameter = (
    "limit",
    "integer",
    "The largest number of objects to return. When there are more, the list's metadata has a value for `continue`. All parts of a list show the same moment. Not for a watch.",
);
const VERSION: Parameter = (
    "resourceVersion",
    "string",
    "What versions a request may be served from. See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions for details.\n\nDefaults to unset",
);
const MATCH: Parameter = (
    "resourceVersionMatch",
    "string",
    "How resourceVersion is applied to a list. See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions for details.\n\nDefaults to unset",
);
const INITIAL: Parameter = (
    "sendInitialEvents",
    "boolean",
    "Let a watch begin with events that make up the present state, ended by a bookmark with the annotation `\"k8s.io/initial-events-end\": \"true\"`. Requires resourceVersionMatch.",
);
const TIMEOUT: Parameter = (
    "timeoutSeconds",
    "integer",
    "Timeout for the list/watch call. This limits the duration of the call, regardless of any activity or inactivity.",
);
const WATCH: Parameter = (
    "watch",
    "boolean",
    "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications. Specify resourceVersion.",
);

/// Of a list, and of the old form of a watch.
pub(super) const LIST: &[Parameter] =
    &[BOOKMARKS, CONTINUE, FIELDS, LABELS, LIMIT, PRETTY, VERSION, MATCH, INITIAL, TIMEOUT, WATCH];
/// Of `DELETE` of a collection.
pub(super) const DELETE_COLLECTION: &[Parameter] = &[
    CONTINUE,
    DRY_RUN,
    FIELDS,
    GRACE,
    UNSAFE,
    LABELS,
    LIMIT,
    ORPHAN,
    PRETTY,
    PROPAGATION,
    VERSION,
    MATCH,
    INITIAL,
    TIMEOUT,
];

/// Of the endpoints that connect to something, by the kind of their options.
pub(super) fn connect(kind: &str) -> &'static [Parameter] {
    const STREAMS: [Parameter; 5] = [
        ("container", "string", "The container to connect to. Defaults to the only one."),
        ("stderr", "boolean", "Redirect the standard error stream of the pod for this call."),
        ("stdin", "boolean", "Redirect the standard input stream of the pod for this call. Defaults to false."),
        ("stdout", "boolean", "Redirect the standard output stream of the pod for this call."),
        ("tty", "boolean", "Whether a terminal is allocated. Defaults to false."),
    ];
    match kind {
        "PodAttachOptions" => &STREAMS,
        "PodExecOptions" => {
            const ALL: &[Parameter] = &[
                ("command", "string", "The command to execute, one argument each. Not executed within a shell."),
                STREAMS[0],
                STREAMS[1],
                STREAMS[2],
                STREAMS[3],
                STREAMS[4],
            ];
            ALL
        }
        "PodPortForwardOptions" => &[("ports", "integer", "Ports to forward. Required when using WebSockets.")],
        "NodeProxyOptions" | "PodProxyOptions" | "ServiceProxyOptions" => {
            &[("path", "string", "The URL path to use for the proxied request.")]
        }
        "PodLogOptions" => &[
            ("container", "string", "The container whose log to show. Defaults to the only one."),
            ("follow", "boolean", "Follow the log stream of the pod. Defaults to false."),
            (
                "insecureSkipTLSVerifyBackend",
                "boolean",
                "Do not check the serving certificate of the kubelet that the log comes from.",
            ),
            ("limitBytes", "integer", "The number of bytes to read before ending the output."),
            PRETTY,
            ("previous", "boolean", "Return previous terminated container logs. Defaults to false."),
            ("sinceSeconds", "integer", "A relative time in seconds before the current time from which to show logs."),
            ("stream", "string", "Which stream to return: \"All\", \"Stdout\" or \"Stderr\". Defaults to \"All\"."),
            ("tailLines", "integer", "The number of lines from the end of the logs to show."),
            ("timestamps", "boolean", "Begin every line with a timestamp. Defaults to false."),
        ],
        _ => &[],
    }
}

/// Parameters of the query as OpenAPI v3 writes them.
pub(super) fn query(all: &[Parameter]) -> Vec<Value> {
    all.iter()
        .map(|(name, of, text)| {
            json!({"name": name, "in": "query", "description": text, "schema": {"type": of, "uniqueItems": true}})
        })
        .collect()
}

/// A parameter of the path.
pub(super) fn segment(name: &str, text: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": text,
        "schema": {"type": "string", "uniqueItems": true}})
}

fn key(p: &Value) -> (String, String) {
    let text = |k: &str| p.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("name"), text("in"))
}

/// Moves what all operations of a path have in common to the path.
pub(super) fn hoist(item: &mut Map<String, Value>) {
    let lists: Vec<Vec<Value>> =
        item.values().map(|op| op["parameters"].as_array().cloned().unwrap_or_default()).collect();
    let Some((first, others)) = lists.split_first() else { return };
    let mut common: Vec<Value> =
        first.iter().filter(|p| others.iter().all(|list| list.iter().any(|q| key(q) == key(p)))).cloned().collect();
    for op in item.values_mut() {
        if let Some(Value::Array(list)) = op.get_mut("parameters") {
            list.retain(|p| !common.iter().any(|q| key(q) == key(p)));
            list.sort_by_key(key);
            if list.is_empty()
                && let Some(op) = op.as_object_mut()
            {
                op.remove("parameters");
            }
        }
    }
    if !common.is_empty() {
        common.sort_by_key(key);
        item.insert("parameters".into(), common.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_ones_belong_to_the_path() {
        let mut item = Map::new();
        item.insert("get".into(), json!({"parameters": query(READ)}));
        item.insert("put".into(), json!({"parameters": query(WRITE)}));
        hoist(&mut item);
        assert!(item["get"].get("parameters").is_none());
        assert_eq!(item["put"]["parameters"].as_array().unwrap().len(), 3);
        assert_eq!(item["parameters"][0]["name"], "pretty");
    }
}
