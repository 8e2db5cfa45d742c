use super::*;

fn admission() -> Env {
    let object = of_kind("apps/v1", "Deployment");
    Admission { object, authorizer: true, params: Some(Type::Dyn), ..Admission::default() }.env()
}

/// The type of an expression, or what is wrong with it.
fn outcome(source: &str, env: &Env) -> String {
    match compile(source, env) {
        Ok(compiled) => compiled.result.to_string(),
        Err(issues) => issues.to_string(),
    }
}

fn each(env: &Env, cases: &[(&str, &str)]) {
    for (source, expect) in cases {
        assert_eq!(outcome(source, env), *expect, "{source}");
    }
}

#[test]
fn types_of_results() {
    each(
        &admission(),
        &[
            ("true", "bool"),
            ("1 + 2 * 3 - -4", "int"),
            ("1u", "uint"),
            ("1.5 / 2.0", "double"),
            ("'a' + \"b\"", "string"),
            ("b'a'", "bytes"),
            ("null", "null"),
            ("[1, 2]", "list(int)"),
            ("[]", "list(dyn)"),
            ("{'a': 1}", "map(string, int)"),
            ("{}", "map(dyn, dyn)"),
            ("1 < 2.0 && 2u >= 1", "bool"),
            ("object.spec.replicas > 1", "bool"),
            ("object.spec.replicas", "int"),
            ("object.metadata.?labels.?app", "optional_type(string)"),
            ("object.metadata.?labels[?'app'].orValue('x')", "string"),
            ("object.metadata.labels['app']", "string"),
            ("object.spec.template.spec.containers.all(c, c.image.startsWith('x'))", "bool"),
            ("object.spec.template.spec.containers.map(c, c.name)", "list(string)"),
            (
                "object.spec.template.spec.containers.filter(c, has(c.image))",
                "list(Deployment.spec.template.spec.containers.@idx)",
            ),
            ("object.metadata.labels.exists(k, v, k == v)", "bool"),
            ("object.metadata.labels.transformList(k, v, k + v)", "list(string)"),
            ("object.metadata.labels.transformMap(k, v, size(v))", "map(string, int)"),
            ("[1, 2].transformMapEntry(i, v, {v: string(i)})", "map(int, string)"),
            ("['a'].sortBy(x, x.size())", "list(string)"),
            ("object.metadata.?labels.optMap(l, l.size())", "optional_type(int)"),
            ("object.metadata.?labels.optFlatMap(l, l[?'a'])", "optional_type(string)"),
            ("type(object.spec.replicas) == int", "bool"),
            ("type(1)", "type(int)"),
            ("params.anything.at.all", "dyn"),
            ("duration('1h30m') > duration('0.5s')", "bool"),
            ("timestamp('2024-01-01T00:00:00Z') - duration('1h')", "timestamp"),
            ("object.metadata.creationTimestamp.getFullYear('UTC')", "int"),
            ("object.metadata.namespace", "string"),
            ("request.userInfo.groups.exists(g, g == 'a')", "bool"),
            ("request.options.dryRun", "dyn"),
            ("namespaceObject.metadata.labels['env'] == 'prod'", "bool"),
            ("authorizer.group('').resource('pods').namespace('a').check('get').allowed()", "bool"),
            ("quantity('1Gi').isGreaterThan(quantity('1Mi'))", "bool"),
            ("quantity('1').add(2)", "kubernetes.Quantity"),
            ("ip('1.2.3.4').family() == 4", "bool"),
            ("cidr('10.0.0.0/8').containsIP('10.0.0.1')", "bool"),
            ("ip.isCanonical('::1')", "bool"),
            ("url('https://a').getQuery()", "map(string, list(string))"),
            ("semver('1.2.3', true).major()", "int"),
            ("format.dns1123Label().validate('a')", "optional_type(list(string))"),
            ("'a b'.split(' ').join('-').upperAscii()", "string"),
            ("'%s is %d'.format(['a', 1])", "string"),
            ("'%% %.2f %x %s'.format([1.0, b'a', params.x])", "string"),
            ("'abc'.find('b') + 'a1'.findAll('[0-9]')[0]", "string"),
            ("sets.contains([1], [2])", "bool"),
            ("[3, 1].sort().reverse().max()", "int"),
            ("lists.range(3).slice(0, 2).distinct().first()", "optional_type(int)"),
            ("true ? 1 : 2", "int"),
            ("[?optional.of(1), 2]", "list(int)"),
            ("{?'a': optional.of(1)}", "map(string, int)"),
            ("[1, 2].exists_one(x, x == 1)", "bool"),
            ("!has(object.spec.paused) || !object.spec.paused", "bool"),
            ("object.spec.strategy.rollingUpdate.maxSurge", "dyn"),
            ("'''a\nb''' == r'\\d'", "bool"),
            ("[1].map(x, x > 0, x * 2)", "list(int)"),
            ("dyn(1) == 'a'", "bool"),
            ("'a' in ['a'] && 'a' in {'a': 1}", "bool"),
            ("object == null", "bool"),
            ("--1 == 1 && !!true", "bool"),
        ],
    );
}

#[test]
fn what_is_wrong() {
    each(
        &admission(),
        &[
            ("object.spce", "ERROR: <input>:1:7: undefined field 'spce'\n | object.spce\n | ......^"),
            (
                "object.replicas > 1",
                "ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^",
            ),
            ("has(object.spec.text)", "ERROR: <input>:1:4: undefined field 'text'\n | has(object.spec.text)\n | ...^"),
            ("x", "ERROR: <input>:1:1: undeclared reference to 'x' (in container '')\n | x\n | ^"),
            ("foo(1)", "ERROR: <input>:1:4: undeclared reference to 'foo' (in container '')\n | foo(1)\n | ...^"),
            (
                "1 == 'a'",
                "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, string)'\n | 1 == 'a'\n | ..^",
            ),
            (
                "'é' ==\n  1",
                "ERROR: <input>:1:5: found no matching overload for '_==_' applied to '(string, int)'\n | 'é' ==\n | .．..^",
            ),
            ("true &&\n 1", "ERROR: <input>:2:2: expected type 'bool' but found 'int'\n |  1\n | .^"),
            (
                "authorizer.allowed()",
                "ERROR: <input>:1:19: found no matching overload for 'allowed' applied to 'kubernetes.authorization.Authorizer.()'\n | authorizer.allowed()\n | ..................^",
            ),
            (
                "object.spec.replicas.foo",
                "ERROR: <input>:1:21: type 'int' does not support field selection\n | object.spec.replicas.foo\n | ....................^",
            ),
            (
                "object.spec.replicas.all(x, x)",
                "ERROR: <input>:1:12: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | object.spec.replicas.all(x, x)\n | ...........^",
            ),
            (
                "[1, 'a'].size() > 0",
                "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a'].size() > 0\n | ....^",
            ),
            (
                "duration('x') > duration('1s')",
                "ERROR: <input>:1:10: invalid duration argument\n | duration('x') > duration('1s')\n | .........^",
            ),
            (
                "'a'.matches('[')",
                "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('[')\n | ............^",
            ),
            (
                "timestamp('2024')",
                "ERROR: <input>:1:11: invalid timestamp argument\n | timestamp('2024')\n | ..........^",
            ),
            (
                "[1].all(1, true)",
                "ERROR: <input>:1:9: argument must be a simple name\n | [1].all(1, true)\n | ........^",
            ),
            (
                "[1].map(1, true)",
                "ERROR: <input>:1:9: argument is not an identifier\n | [1].map(1, true)\n | ........^",
            ),
            ("has(object)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(object)\n | ....^"),
            ("if", "ERROR: <input>:1:1: reserved identifier: if\n | if\n | ^"),
            ("99999999999999999999", "ERROR: <input>:1:1: invalid int literal\n | 99999999999999999999\n | ^"),
            (
                "object.spec.replicas >",
                "ERROR: <input>:1:23: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | object.spec.replicas >\n | ......................^",
            ),
            ("1 2", "ERROR: <input>:1:3: Syntax error: extraneous input '2' expecting <EOF>\n | 1 2\n | ..^"),
            (
                "1 = 2",
                "ERROR: <input>:1:3: Syntax error: token recognition error at: '= '\n | 1 = 2\n | ..^\nERROR: <input>:1:5: Syntax error: extraneous input '2' expecting <EOF>\n | 1 = 2\n | ....^",
            ),
            (
                "cel.bind(x, 1, x)",
                "ERROR: <input>:1:1: undeclared reference to 'cel' (in container '')\n | cel.bind(x, 1, x)\n | ^\nERROR: <input>:1:9: undeclared reference to 'bind' (in container '')\n | cel.bind(x, 1, x)\n | ........^\nERROR: <input>:1:10: undeclared reference to 'x' (in container '')\n | cel.bind(x, 1, x)\n | .........^\nERROR: <input>:1:16: undeclared reference to 'x' (in container '')\n | cel.bind(x, 1, x)\n | ...............^",
            ),
            (
                "Object{}",
                "ERROR: <input>:1:7: undeclared reference to 'Object' (in container '')\n | Object{}\n | ......^",
            ),
        ],
    );
}

#[test]
fn objects_of_changes() {
    let env = Admission { mutation: true, authorizer: true, ..Admission::default() }.env();
    each(
        &env,
        &[
            ("Object{spec: Object.spec{replicas: 1}}", "Object"),
            ("[JSONPatch{op: 'add', path: '/a', value: 1}]", "list(JSONPatch)"),
            ("[JSONPatch{op: 'remove', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b')}]", "list(JSONPatch)"),
            (
                "JSONPatch{op: 1}",
                "ERROR: <input>:1:13: expected type of field 'op' is 'string' but provided type is 'int'\n | JSONPatch{op: 1}\n | ............^",
            ),
            (
                "JSONPatch{oops: 1}",
                "ERROR: <input>:1:15: undefined field 'oops'\n | JSONPatch{oops: 1}\n | ..............^",
            ),
            ("object.anything", "dyn"),
        ],
    );
}

#[test]
fn selectors_of_devices() {
    each(
        &DEVICE,
        &[
            ("device.driver == 'a'", "bool"),
            ("device.attributes['a'].b", "any"),
            ("device.capacity['a'].b.compareTo(quantity('1')) > 0", "bool"),
            ("cel.bind(a, device.attributes['x'], a.b && a.c)", "bool"),
            ("device.attributes['x'].v.isGreaterThan(semver('1.0.0'))", "bool"),
            ("device.model", "ERROR: <input>:1:7: undefined field 'model'\n | device.model\n | ......^"),
        ],
    );
}

#[test]
fn result_types_have_declared_names() {
    let check = |source: &str, expect: &str| {
        assert_eq!(compile(source, &DEVICE).unwrap().result.declared().to_string(), expect, "{source}");
    };
    check("timestamp('2024-01-01T00:00:00Z')", "google.protobuf.Timestamp");
    check("[duration('1s')]", "list(google.protobuf.Duration)");
    check("null", "null_type");
    check("device.attributes['a'].b", "google.protobuf.Any");
}

/// Hostile texts: whatever comes, it comes soon, and the stack holds.
#[test]
fn hostile_texts() {
    let env = admission();
    let deep = |open: &str, middle: &str, close: &str, n: usize| {
        let text = open.repeat(n) + middle + &close.repeat(n);
        outcome(&text, &env)
    };
    for n in [90, 100, 300, 20_000] {
        for (open, middle, close) in [
            ("(", "1", ")"),
            ("[", "1", "]"),
            ("{1: ", "1", "}"),
            ("size(", "'a'", ")"),
            ("[1].all(x, ", "true", ")"),
            ("[[1].map(x, ", "true", ")]"),
            ("optional.of(1).optMap(x, ", "x", ")"),
            ("true ? 1 : ", "1", ""),
            ("!", "true", ""),
            ("-", "1", ""),
            ("1 + ", "1", ""),
            ("a.", "b", ""),
            ("", "[1]", ".map(a, {a: a})"),
            ("", "[1]", ".map(a, [a, a])"),
            ("", "object.metadata.?labels", ".optMap(a, a)"),
            ("true && ", "true", ""),
            ("1 == ", "1", ""),
            ("(", "", ""),
            ("[{", "", ""),
            ("'", "", ""),
            ("a.b(", "", ""),
            ("1 ? ", "", ""),
        ] {
            let found = deep(open, middle, close, n);
            assert!(found.len() < 100_000, "{open} {n}");
        }
    }
    assert_eq!(deep("true && ", "true", "", 10_000), "bool");
    assert_eq!(deep("(", "1", ")", 90), "int");
    assert_eq!(deep("(", "1", ")", 101), "ERROR: <input>:-1:0: expression recursion limit exceeded: 250");
    let doubled: String = (0..60).fold("[1]".to_owned(), |s, _| s + ".map(a, {a: a})");
    assert!(outcome(&doubled, &env).contains("too complex"), "{}", outcome(&doubled, &env));
}

proptest::proptest! {
    #[test]
    fn nothing_panics(source in "([a-z]{1,3}|[0-9]{1,2}|'[a-z\\\\]?'|[.,()\\[\\]{}?:+*/<>=!&|@é \n-]|object|all|map|has| in |true){0,24}") {
        let _ = outcome(&source, &admission());
    }
}
