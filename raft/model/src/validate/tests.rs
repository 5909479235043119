//! One rule each: what is changed of a valid request, and what is then said.

use serde_json::{Value, json};

use super::*;
use crate::desired_lrp::{DesiredLrp, DesiredLrpUpdate};
use crate::id::TaskGuid;
use crate::task::TaskDefinition;

fn run() -> Value {
    json!({"run": {"path": "/app", "user": "vcap"}})
}

/// Puts a value over another: objects field by field, everything else whole.
fn put(over: &mut Value, value: Value) {
    match (over, value) {
        (Value::Object(over), Value::Object(fields)) => {
            for (name, value) in fields {
                over.insert(name, value);
            }
        }
        (over, value) => *over = value,
    }
}

fn lrp_with(changes: Value) -> Result<(), Refusal> {
    let mut lrp = json!({
        "process_guid": "web", "domain": "cf-apps", "rootfs": "docker:///nginx", "instances": 1,
        "action": run(),
    });
    put(&mut lrp, changes);
    desired_lrp(&serde_json::from_value::<DesiredLrp>(lrp).unwrap())
}

fn said(result: Result<(), Refusal>) -> String {
    match result {
        Ok(()) => String::new(),
        Err(Refusal::InvalidRequest(text)) => text.replace("Invalid field: ", "!"),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn desired_lrps_field_by_field() {
    let long = |bytes: usize| "x".repeat(bytes);
    let table = [
        (json!({}), ""),
        (json!({"process_guid": ""}), "!process_guid"),
        (json!({"process_guid": "a/b"}), "!process_guid"),
        (json!({"process_guid": long(256)}), "!process_guid"),
        (json!({"domain": ""}), "!domain, !domain"),
        (json!({"rootfs": ""}), "!rootfs, !rootfs"),
        (json!({"rootfs": "no-scheme"}), "!rootfs"),
        (json!({"rootfs": ":x"}), "!rootfs"),
        (json!({"instances": -1}), "!instances"),
        (json!({"instances": 0}), ""),
        (json!({"memory_mb": -1}), "!memory_mb"),
        (json!({"disk_mb": -1}), "!disk_mb"),
        (json!({"max_pids": -1}), "!max_pids"),
        (json!({"annotation": long(10_240)}), ""),
        (json!({"annotation": long(10_241)}), "!annotation"),
        (json!({"routes": {"a": long(65_536), "b": long(65_536)}}), ""),
        (json!({"routes": {"a": long(65_536), "b": long(65_537)}}), "!routes"),
        (json!({"metric_tags": {"a": {"static": "x"}, "b": {"dynamic": "INDEX"}}}), ""),
        (json!({"metric_tags": {"a": {}}}), "!metric_tags, !static, !dynamic"),
        (
            json!({"metric_tags": {"a": {"static": "x", "dynamic": "INDEX"}, "b": {}}}),
            "!metric_tags, !static, !dynamic, !static, !dynamic",
        ),
        (json!({"metrics_guid": "g"}), ""),
        (
            json!({"metrics_guid": "g", "metric_tags": {"source_id": {"static": "h"}}}),
            "!metric_tags, !source_id should match metrics_guid",
        ),
        (json!({"metrics_guid": "g", "metric_tags": {"source_id": {"static": "g"}}}), ""),
        (json!({"log_rate_limit": {"bytes_per_second": -1}}), ""),
        (
            json!({"log_rate_limit": {"bytes_per_second": -2}}),
            "!log_rate_limit_bytes_per_second, !log_rate_limit",
        ),
        (json!({"volume_mounted_files": [{"path": "a", "content": long(1 << 20)}]}), ""),
        (
            json!({"volume_mounted_files": [{"content": long(1 << 20)}, {"content": "x"}]}),
            "!volumeMountedFiles, !volumeMountedFiles",
        ),
        (json!({"ports": [0]}), "!ports"),
        (json!({"action": null}), "invalid action type"),
        (json!({"action": {"run": {"user": "vcap"}}}), "!action, !path"),
        (json!({"setup": {"run": {"path": "/x"}}}), "!setup, !user"),
        (json!({"monitor": {"run": {}}}), "!monitor, !path, !user"),
        (
            json!({"env": [
                {"name": "", "value": ""}, {"name": "A", "value": ""}, {"name": "", "value": ""}]}),
            "invalid field: name cannot be blank, invalid field: name cannot be blank",
        ),
        (
            json!({"egress_rules": [{"protocol": "all"}]}),
            "!egress_rules, !destinations [ Must have at least 1 destination ]",
        ),
        (json!({"cached_dependencies": [{"from": "x"}]}), "!cached_dependency, !to"),
        (json!({"sidecars": [{"action": run()}]}), ""),
        (json!({"sidecars": [{}]}), "!sidecars, invalid action type"),
        (
            json!({"sidecars": [{"action": run(), "memory_mb": -1, "disk_mb": -1}, {}]}),
            "!sidecars, !memory_mb, !disk_mb, invalid action type",
        ),
        (
            json!({"volume_mounts": [{"driver": "", "mode": "x"}]}),
            "invalid volume_mount driver, invalid volume_mount mode",
        ),
        (
            json!({"volume_mounts": [{"driver": "nfs", "mode": "r", "shared": {}}]}),
            "invalid volume_mount volume id",
        ),
        (
            json!({"volume_mounts": [{"driver": "nfs", "mode": "rw", "dedicated": {}}]}),
            "invalid volume_mount mounter id",
        ),
        (json!({"image_password": "x"}), "!image_username"),
        (json!({"image_username": "x"}), "!image_password"),
        (json!({"check_definition": {"checks": [{}]}}), "!check_definition, !port"),
        (
            json!({"check_definition": {"checks": [{"tcp_check": {"port": 65_536}}]}}),
            "!check_definition, !port",
        ),
        (
            json!({"check_definition": {"readiness_checks": [
                {"tcp_check": {"port": 0}, "http_check": {"port": 1}}]}}),
            "!check_definition, !check",
        ),
        (
            json!({"process_guid": "", "domain": "", "memory_mb": -1, "max_pids": -1,
                "annotation": long(10_241), "action": null, "setup": {"run": {"path": "/x"}}}),
            "!domain, !memory_mb, !annotation, !max_pids, !domain, !process_guid, !setup, !user, \
             invalid action type",
        ),
    ];
    for (changes, expected) in table {
        let short: String = changes.to_string().chars().take(120).collect();
        assert_eq!(said(lrp_with(changes)), expected, "{short}");
    }
}

/// On the wire an empty map is an absent one, and Diego wants one.
#[test]
fn diegos_clients_name_a_metric_tag() {
    let lrp = |tags: Value| -> DesiredLrp {
        serde_json::from_value(json!({
            "process_guid": "web", "domain": "d", "rootfs": "docker:///nginx", "max_pids": -1,
            "metric_tags": tags,
        }))
        .unwrap()
    };
    let said = |lrp: DesiredLrp| said(desired_lrp_of_diegos(&lrp));
    assert_eq!(said(lrp(json!({}))), "!max_pids, !metric_tags, invalid action type");
    assert_eq!(said(lrp(json!({"a": {"static": "x"}}))), "!max_pids, invalid action type");
}

#[test]
fn updates_field_by_field() {
    let table = [
        (json!({}), ""),
        (json!({"instances": -1}), "!instances"),
        (json!({"annotation": "x".repeat(10_241)}), "!annotation"),
        (json!({"routes": {"a": "x".repeat(131_073)}}), "!routes"),
        (json!({"metric_tags": {"a": {}}}), "!metric_tags, !static, !dynamic"),
        (json!({"image_username": "x"}), "!image_password"),
        (json!({"image_password": "x"}), "!image_username"),
        (json!({"image_username": "x", "image_password": "x"}), ""),
    ];
    for (update, expected) in table {
        let read: DesiredLrpUpdate = serde_json::from_value(update).unwrap();
        assert_eq!(said(desired_lrp_update(&read)), expected);
    }
}

#[test]
fn tasks_field_by_field() {
    let table = [
        (json!({}), ""),
        (json!({"rootfs": ""}), "!rootfs"),
        (json!({"action": null}), "invalid action type"),
        (json!({"action": {"run": {"path": "x"}}}), "!action, !user"),
        (json!({"memory_mb": -1}), "!memory_mb"),
        (json!({"disk_mb": -1}), "!disk_mb"),
        (json!({"max_pids": -1}), "!max_pids"),
        (json!({"log_rate_limit": {"bytes_per_second": -2}}), "!log_rate_limit"),
        (json!({"annotation": "x".repeat(10_241)}), "!annotation"),
        (json!({"egress_rules": [{"protocol": "all"}]}), "!egress_rules"),
        (json!({"image_username": "x"}), "!image_password"),
        (json!({"image_password": "x"}), "!image_username"),
        (json!({"cached_dependencies": [{}]}), "!cached_dependency, !from, !to"),
        (json!({"env": [{"name": "", "value": ""}]}), ""),
        (json!({"volume_mounts": [{}]}), ""),
        (json!({"metric_tags": {"a": {}}}), ""),
    ];
    for (changes, expected) in table {
        let mut definition = json!({"rootfs": "docker:///busybox", "action": run()});
        put(&mut definition, changes.clone());
        let read: TaskDefinition = serde_json::from_value(definition).unwrap();
        let result = task(&TaskGuid::from("job"), &DomainName::from("cf-tasks"), Some(&read));
        assert_eq!(said(result), expected, "{changes}");
    }
    let definition: TaskDefinition =
        serde_json::from_value(json!({"rootfs": "docker:///busybox", "action": run()})).unwrap();
    assert_eq!(said(task(&"a b".into(), &"".into(), Some(&definition))), "!task_guid, !domain");
    let nothing = said(task(&"".into(), &"".into(), None));
    assert_eq!(nothing, "!task_guid, !domain, !task_definition");
}

#[test]
fn actions_kind_by_kind() {
    let download = |changes: Value| {
        let mut download = json!({"from": "a", "to": "b", "user": "c"});
        put(&mut download, changes);
        json!({"download": download})
    };
    let table = [
        (json!({"run": {}}), "!path, !user"),
        (json!({"download": {}}), "!from, !to, !user"),
        (download(json!({})), ""),
        (download(json!({"checksum_value": "x"})), "!checksum algorithm"),
        (download(json!({"checksum_algorithm": "md5"})), "!checksum value"),
        (
            download(json!({"checksum_algorithm": "md4", "checksum_value": "x"})),
            "!invalid algorithm",
        ),
        (download(json!({"checksum_algorithm": "SHA256", "checksum_value": "x"})), ""),
        (json!({"upload": {}}), "!to, !from, !user"),
        (json!({"timeout": {}}), "!action, !timeout_ms"),
        (json!({"timeout": {"action": run(), "timeout_ms": 1}}), ""),
        (json!({"try": {}}), "!action"),
        (json!({"try": {"action": {"run": {"path": "x"}}}}), "!user"),
        (json!({"timeout": {"action": {"run": {"path": "x"}}}}), "!user, !timeout_ms"),
        (json!({"emit_progress": {}}), "!action"),
        (json!({"parallel": {}}), "!actions"),
        (json!({"serial": {"actions": [run(), null]}}), "!action at index 1"),
        (json!({"codependent": {"actions": [run(), {"run": {"user": "x"}}]}}), "!path"),
    ];
    for (action, inner) in table {
        let expected = if inner.is_empty() { String::new() } else { format!("!action, {inner}") };
        assert_eq!(said(lrp_with(json!({"action": action}))), expected, "{action}");
    }
}

#[test]
fn image_layers_field_by_field() {
    let table = [
        (json!({}), ""),
        (json!({"url": ""}), "!image_layer, !url"),
        (json!({"destination_path": ""}), "!image_layer, !destination_path"),
        (json!({"layer_type": "LAYER_TYPE_INVALID"}), "!image_layer, !layer_type"),
        (json!({"media_type": "MEDIA_TYPE_INVALID"}), "!image_layer, !media_type"),
        (json!({"digest_value": "x"}), "!image_layer, !digest_algorithm, !digest_algorithm"),
        (json!({"digest_algorithm": "SHA256"}), "!image_layer, !digest_value"),
        (
            json!({"layer_type": "EXCLUSIVE"}),
            "!image_layer, !digest_algorithm, !digest_value, !legacy_download_user",
        ),
    ];
    for (changes, expected) in table {
        let mut layer = json!({
            "url": "a", "destination_path": "b", "layer_type": "SHARED", "media_type": "TGZ",
        });
        put(&mut layer, changes.clone());
        assert_eq!(said(lrp_with(json!({"image_layers": [layer]}))), expected, "{changes}");
    }
}

#[test]
fn egress_rules_field_by_field() {
    let table = [
        (json!({"protocol": "tcp", "ports": [80]}), ""),
        (json!({"protocol": "udp", "port_range": {"start": 1, "end": 2}}), ""),
        (json!({"protocol": "tcp"}), "Missing required field: ports or port_range"),
        (
            json!({"protocol": "tcp", "ports": [1], "port_range": {"start": 1, "end": 2}}),
            "Invalid: ports and port_range provided",
        ),
        (json!({"protocol": "tcp", "ports": [0]}), "!ports"),
        (json!({"protocol": "tcp", "port_range": {"start": 2, "end": 1}}), "!port_range"),
        (json!({"protocol": "tcp", "port_range": {"start": 0, "end": 1}}), "!port_range"),
        (
            json!({"protocol": "tcp", "port_range": {"start": 1, "end": 0}}),
            "!port_range, !port_range",
        ),
        (json!({"protocol": "tcp", "ports": [1], "icmp_info": {}}), "!icmp_info"),
        (json!({"protocol": "icmp", "icmp_info": {"type": 8, "code": -1}}), ""),
        (json!({"protocol": "icmp"}), "!icmp_info"),
        (json!({"protocol": "icmp", "ports": [1], "icmp_info": {}}), "!ports"),
        (
            json!({"protocol": "icmp", "ports": [1], "port_range": {"start": 1, "end": 1}}),
            "!port_range, !ports, !icmp_info",
        ),
        (json!({"protocol": "icmpv6"}), "!icmpv6_info"),
        (json!({"protocol": "all", "port_range": {"start": 1, "end": 1}}), "!port_range"),
        (json!({"protocol": "all", "icmp_info": {}}), "!icmp_info"),
        (json!({"protocol": "sctp"}), "!protocol"),
        (
            json!({"protocol": "all", "destinations": []}),
            "!destinations [ Must have at least 1 destination ]",
        ),
        (
            json!({"protocol": "all", "destinations": ["x,1.1.1.1", "y"]}),
            "!destinations [ Invalid IP, Invalid IP ]",
        ),
        (json!({"protocol": "all", "destinations": ["10.0.0.0/8,::1,1.1.1.1-1.1.1.2"]}), ""),
        (json!({"protocol": "all", "destinations": ["x"]}), "!destinations [ Invalid IP ]"),
        (
            json!({"protocol": "all", "destinations": ["1.1.1.2-1.1.1.1"]}),
            "!destinations [ Invalid IP ]",
        ),
        (
            json!({"protocol": "all", "destinations": ["10.0.0.0/33"]}),
            "!destinations [ invalid CIDR address: 10.0.0.0/33 ]",
        ),
        (
            json!({"protocol": "all", "destinations": ["10.0.0.0/+8"]}),
            "!destinations [ invalid CIDR address: 10.0.0.0/+8 ]",
        ),
        (
            json!({"protocol": "all", "destinations": ["1.1.1.1, 1.1.1.2", " 10.0.0.0/8"]}),
            "!destinations [ Invalid IP, invalid CIDR address:  10.0.0.0/8 ]",
        ),
        (
            json!({"protocol": "all", "destinations": ["10.0.0.1-10.0.0.0/8", "10.0.0.0/8-9"]}),
            "!destinations [ Invalid IP, invalid CIDR address: 10.0.0.0/8-9 ]",
        ),
        // Each byte that is too great is complained of.
        (
            json!({"protocol": "all", "destinations": ["10.5.5.5-10.4.4.9"]}),
            "!destinations [ Invalid IP, Invalid IP ]",
        ),
        // Addresses of version 4 are mapped ones, greater than most of version 6.
        (json!({"protocol": "all", "destinations": ["::1-1.1.1.1", "1.1.1.1-1::"]}), ""),
        (
            json!({"protocol": "all", "destinations": ["1.0.0.0-::9"]}),
            "!destinations [ Invalid IP, Invalid IP, Invalid IP ]",
        ),
    ];
    for (rule, expected) in table {
        let mut whole = json!({"destinations": ["10.0.0.1"]});
        put(&mut whole, rule.clone());
        let expected =
            if expected.is_empty() { String::new() } else { format!("!egress_rules, {expected}") };
        assert_eq!(said(lrp_with(json!({"egress_rules": [whole]}))), expected, "{rule}");
    }
}

#[test]
fn what_a_cell_says_of_an_instance() {
    let placement = |process_guid: &str, domain: &str, instance_guid: &str, cell_id: &str| {
        let (process_guid, domain) = (process_guid.into(), domain.into());
        let key = ActualLrpKey { process_guid, index: 0, domain };
        let instance = InstanceKey { instance_guid: instance_guid.into(), cell_id: cell_id.into() };
        said(super::placement(&key, &instance))
    };
    assert_eq!(placement("web", "d", "i", "c"), "");
    assert_eq!(placement("", "d", "i", "c"), "!process_guid");
    assert_eq!(placement("web", "", "i", "c"), "!domain");
    assert_eq!(placement("web", "d", "", "c"), "!instance_guid");
    assert_eq!(placement("web", "d", "i", ""), "!cell_id");
    assert_eq!(placement("", "", "", ""), "!process_guid, !domain, !instance_guid, !cell_id");
    assert_eq!(said(super::process_guid(&"".into())), "!process_guid");
}

/// Go's `url.Parse`, of which Diego wants a scheme besides.
#[test]
fn a_root_file_system_is_an_url_to_go() {
    let urls = [
        "docker:///nginx",
        "docker://registry.lan:5000/a/b:tag#digest",
        "docker:///a b",
        "docker:///a%2fb?x=%zz#tag",
        "docker://h:/x",
        "docker://a:b:5000/x",
        "docker://u@v%41:w@h\"<>/x",
        "docker://h%25%c3%a9é/x",
        "docker://[::1]:5000/x",
        "docker://[fe80::1%25en0]/x",
        "preloaded:cflinuxfs4",
        "preloaded:%zz and more",
        "preloaded+layer:x?layer=http://a/%",
        "docker:",
        "docker://",
    ];
    for url in urls {
        assert!(rootfs::is_url(url), "{url}");
    }
    let others = [
        "",
        "nginx",
        "/nginx",
        ":nginx",
        "1docker:x",
        "do_cker:x",
        "döcker:x",
        " docker:x",
        "docker:///a\n",
        "docker:///a\u{7f}",
        "docker:///a%2zb",
        "docker:///a%2",
        "docker:///a#%",
        "docker://%/x",
        "docker://h%41/x",
        "docker://h%2/x",
        "docker://h x/y",
        "docker://h\\x/y",
        "docker://h:80a/x",
        "docker://u ser@h/x",
        "docker://u%zz@h/x",
        "docker://[::1/x",
        "docker://[::1]x/y",
        "docker://[::1]:x/y",
        "docker://[nginx]/x",
        "docker://[fe80::1%25]/x",
        "docker://x[::1]/y",
    ];
    for text in others {
        assert!(!rootfs::is_url(text), "{text:?}");
    }
}
