//! Golden bytes: what the codec wrote once, this build reads, and writes the same.
//!
//! One line each in `golden/`: a name and hexadecimal bytes; of a row, those of its key and those
//! of its value. When [`codec::VERSION`] rises, the files of the old version stay as they are and
//! only their reading is still tested.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

use expect_test::expect_file;
use model::action::*;
use model::check::*;
use model::dependency::*;
use model::desired_lrp::*;
use model::egress::*;
use model::lock::LockKind;
use model::metric_tag::*;
use model::task::TaskResult;
use model::volume::*;
use model::*;

const PROPOSALS: &str = include_str!("golden/v4-proposals.hex");
const ROWS: &str = include_str!("golden/v4-rows.hex");
const AT: Millis = Millis(1_700_000_000_000);

#[test]
fn proposals_are_written_as_ever() {
    let mut lines = String::new();
    for (name, proposal) in proposals() {
        writeln!(lines, "{name} {}", hex(&codec::encode_proposal(&proposal))).unwrap();
    }
    expect_file!["golden/v4-proposals.hex"].assert_eq(&lines);
}

#[test]
fn proposals_are_read_as_ever() {
    let golden = PROPOSALS.lines().map(|line| line.split_once(' ').unwrap());
    for ((name, bytes), (expected_name, expected)) in golden.zip(proposals()) {
        assert_eq!(name, expected_name);
        assert_eq!(codec::decode_proposal(&unhex(bytes)), Ok(expected), "{name}");
    }
}

#[test]
fn every_command_keeps_its_number() {
    let nothing = codec::encode_proposal(&Proposal { at: AT, commands: Vec::new() });
    let mut seen = BTreeSet::new();
    for command in commands() {
        let proposal = Proposal { at: AT, commands: vec![command.clone()] };
        let written = codec::encode_proposal(&proposal)[nothing.len()];
        assert_eq!(written, number(&command), "{command:?}");
        seen.insert(written);
    }
    let all: BTreeSet<u8> = (0..=*seen.last().unwrap()).collect();
    assert_eq!(seen, all, "golden bytes for every command");
}

#[test]
fn rows_are_written_as_ever() {
    let mut lines = String::new();
    for row in rows() {
        let mut state = State::new();
        codec::load_row(&mut state, &codec::row_key(&row.key), &row.value).unwrap();
        // From the state, so that it is the codec that writes.
        let value = codec::row_value(&state, &row.key).unwrap();
        let key = codec::row_key(&row.key);
        writeln!(lines, "{} {} {}", row.name, hex(&key), hex(&value)).unwrap();
    }
    expect_file!["golden/v4-rows.hex"].assert_eq(&lines);
}

#[test]
fn rows_are_read_as_ever() {
    for (line, row) in ROWS.lines().zip(rows()) {
        let [name, key, value] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(name, row.name);
        let mut state = State::new();
        codec::load_row(&mut state, &unhex(key), &unhex(value)).unwrap();
        assert!((row.is_read)(&state), "{name}");
    }
}

#[test]
fn every_kind_of_row_is_here() {
    let tables: BTreeSet<u8> = rows().iter().map(|row| codec::row_key(&row.key)[0]).collect();
    assert_eq!(tables, (1..=table(&RowKey::Lock("key".into()))).collect());
    for row in rows() {
        assert_eq!(codec::row_key(&row.key)[0], table(&row.key), "{}", row.name);
    }
}

/// A command's persisted number. Who adds a command adds a line here and one to [`commands`].
fn number(command: &Command) -> u8 {
    match command {
        Command::InitCluster { .. } => 0,
        Command::DesireLrp { .. } => 1,
        Command::UpdateDesiredLrp { .. } => 2,
        Command::RemoveDesiredLrp { .. } => 3,
        Command::RetireLrp { .. } => 4,
        Command::DesireTask { .. } => 5,
        Command::CancelTask { .. } => 6,
        Command::ResolvingTask { .. } => 7,
        Command::DeleteTask { .. } => 8,
        Command::UpsertDomain { .. } => 9,
        Command::SetFeatureFlag { .. } => 10,
        Command::CreateLrp { .. } => 11,
        Command::PlaceLrp { .. } => 12,
        Command::FailLrp { .. } => 13,
        Command::RestartLrp { .. } => 14,
        Command::PlaceTask { .. } => 15,
        Command::RejectTask { .. } => 16,
        Command::ExpirePendingTask { .. } => 17,
        Command::ExpireCompletedTask { .. } => 18,
        Command::DemoteResolvingTask { .. } => 19,
        Command::ExpireDomain { .. } => 20,
        Command::CellMissing { .. } => 21,
        Command::CellReturned { .. } => 22,
        Command::RegisterCell { .. } => 23,
        Command::StartLrp { .. } => 24,
        Command::CrashLrp { .. } => 25,
        Command::RemoveLrp { .. } => 26,
        Command::StartTask { .. } => 27,
        Command::CompleteTask { .. } => 28,
        Command::RejectTaskOnCell { .. } => 29,
        Command::EvacuateCell { .. } => 30,
        Command::OpenCell { .. } => 31,
        Command::RecreateLrp { .. } => 32,
        Command::CloseCell { .. } => 33,
        Command::FailTask { .. } => 34,
        Command::ClaimLock { .. } => 35,
        Command::ReleaseLock { .. } => 36,
        Command::ExpireLock { .. } => 37,
        Command::EvacuateLrp { .. } => 38,
    }
}

/// A table's persisted number.
fn table(row: &RowKey) -> u8 {
    match row {
        RowKey::Cluster => 1,
        RowKey::DesiredLrp(_) => 2,
        RowKey::ActualLrp(_) => 3,
        RowKey::Task(_) => 4,
        RowKey::Cell(_) => 5,
        RowKey::Domain(_) => 6,
        RowKey::FeatureFlag(_) => 7,
        RowKey::Lock(_) => 8,
    }
}

/// One proposal for each command, one of none and one of several.
fn proposals() -> Vec<(String, Proposal)> {
    let one = |command: Command| {
        let told = format!("{command:?}");
        let name = told.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
        (name, Proposal { at: AT, commands: vec![command] })
    };
    let mut proposals: Vec<_> = commands().into_iter().map(one).collect();
    proposals.push(("nothing".to_owned(), Proposal { at: Millis(0), commands: Vec::new() }));
    let commands = vec![
        Command::CancelTask { task_guid: "one".into() },
        Command::CancelTask { task_guid: "two".into() },
    ];
    proposals.push(("several".to_owned(), Proposal { at: Millis(u64::MAX), commands }));
    proposals
}

fn commands() -> Vec<Command> {
    let process_guid = || ProcessGuid::from("web");
    let task_guid = || TaskGuid::from("job");
    let cell_id = || CellId::from("cell-1");
    let (index, reason) = (300, || "because".to_owned());
    vec![
        Command::InitCluster { salt: 0xfeed_cafe },
        Command::DesireLrp { desired_lrp: Box::new(desired_lrp()) },
        Command::UpdateDesiredLrp {
            process_guid: process_guid(),
            update: Box::new(DesiredLrpUpdate {
                instances: Some(3),
                routes: Some([("cf-router".to_owned(), "[]".to_owned())].into()),
                annotation: None,
                metric_tags: Some(metric_tags()),
                image_username: Some("user".to_owned()),
                image_password: Some("word".to_owned()),
                trace_id: "trace".to_owned(),
            }),
        },
        Command::RemoveDesiredLrp { process_guid: process_guid() },
        Command::RetireLrp { process_guid: process_guid(), index },
        Command::DesireTask {
            task_guid: task_guid(),
            domain: "cf-tasks".into(),
            definition: Box::new(definition()),
        },
        Command::CancelTask { task_guid: task_guid() },
        Command::ResolvingTask { task_guid: task_guid() },
        Command::DeleteTask { task_guid: task_guid() },
        Command::UpsertDomain { domain: "cf-apps".into(), ttl: Some(Millis::from_secs(120)) },
        Command::UpsertDomain { domain: "cf-apps".into(), ttl: None },
        Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled: true },
        Command::CreateLrp { process_guid: process_guid(), index },
        Command::PlaceLrp { process_guid: process_guid(), index, cell_id: cell_id() },
        Command::FailLrp { process_guid: process_guid(), index, placement_error: reason() },
        Command::RestartLrp { process_guid: process_guid(), index },
        Command::PlaceTask { task_guid: task_guid(), cell_id: cell_id() },
        Command::RejectTask { task_guid: task_guid(), reason: reason() },
        Command::ExpirePendingTask { task_guid: task_guid() },
        Command::ExpireCompletedTask { task_guid: task_guid() },
        Command::DemoteResolvingTask { task_guid: task_guid() },
        Command::ExpireDomain { domain: "cf-apps".into() },
        Command::CellMissing { cell_id: cell_id() },
        Command::CellReturned { cell_id: cell_id() },
        Command::RegisterCell { cell: Box::new(cell(CellHealth::Present)) },
        Command::StartLrp {
            key: key(),
            instance: instance(),
            net_info: net_info(),
            routable: true,
        },
        Command::CrashLrp { key: key(), instance: instance(), reason: reason() },
        Command::RemoveLrp { key: key(), instance: instance() },
        Command::StartTask { task_guid: task_guid(), cell_id: cell_id() },
        Command::CompleteTask {
            task_guid: task_guid(),
            cell_id: cell_id(),
            failed: true,
            failure_reason: reason(),
            result: "42".to_owned(),
        },
        Command::RejectTaskOnCell { task_guid: task_guid(), cell_id: cell_id(), reason: reason() },
        Command::EvacuateCell { cell_id: cell_id(), timeout: Millis::from_secs(600) },
        Command::OpenCell { cell_id: cell_id() },
        Command::RecreateLrp { process_guid: process_guid(), index },
        Command::CloseCell { cell_id: cell_id() },
        Command::FailTask { task_guid: task_guid(), reason: reason() },
        Command::ClaimLock {
            key: "key".into(),
            owner: "owner".to_owned(),
            value: "value".to_owned(),
            kind: LockKind::Presence,
            ttl: Millis::from_secs(15),
        },
        Command::ReleaseLock { key: "key".into(), owner: "owner".to_owned() },
        Command::ExpireLock { key: "key".into() },
        Command::EvacuateLrp { key: key(), instance: instance(), runs: true },
    ]
}

/// A row with what its bytes must mean.
struct GoldenRow {
    name: &'static str,
    key: RowKey,
    value: Vec<u8>,
    is_read: Box<dyn Fn(&State) -> bool>,
}

impl GoldenRow {
    fn new(
        name: &'static str,
        key: RowKey,
        record: &impl serde::Serialize,
        is_read: impl Fn(&State) -> bool + 'static,
    ) -> Self {
        let value = postcard::to_extend(record, vec![codec::VERSION]).unwrap();
        Self { name, key, value, is_read: Box::new(is_read) }
    }

    fn actual_lrp(name: &'static str, presence: Presence, state: ActualState) -> Self {
        let record = ActualLrp {
            key: key(),
            presence,
            state,
            crash_count: 2,
            crash_reason: "Exited with status 1".to_owned(),
            since: AT,
            memory_mb: 256,
            disk_mb: 1024,
            modification_tag: tag(),
            routable: true,
            availability_zone: "z1".into(),
        };
        let id = record.id();
        Self::new(name, RowKey::ActualLrp(id.clone()), &record.clone(), move |state| {
            state.actual_lrp(&id).is_some_and(|found| **found == record)
        })
    }

    fn task(name: &'static str, state: TaskState) -> Self {
        let record = Task {
            task_guid: "job".into(),
            domain: "cf-tasks".into(),
            definition: definition(),
            state,
            created_at: AT,
            updated_at: AT + Millis(1),
            rejection_count: 1,
            rejection_reason: "insufficient resources".to_owned(),
        };
        let guid = record.task_guid.clone();
        Self::new(name, RowKey::Task(guid.clone()), &record.clone(), move |state| {
            state.task(&guid).is_some_and(|found| **found == record)
        })
    }

    fn cell(name: &'static str, health: CellHealth) -> Self {
        let record = cell(health);
        let id = record.cell_id.clone();
        Self::new(name, RowKey::Cell(id.clone()), &record.clone(), move |state| {
            state.cell(&id).is_some_and(|found| **found == record)
        })
    }

    fn lock(name: &'static str, kind: LockKind) -> Self {
        let (owner, value) = ("owner".to_owned(), "value".to_owned());
        let record = Lock { key: "key".into(), owner, value, kind, expires_at: AT };
        let key = record.key.clone();
        Self::new(name, RowKey::Lock(key.clone()), &record.clone(), move |state| {
            state.lock(&key).is_some_and(|found| **found == record)
        })
    }

    fn domain(name: &'static str, expires_at: Option<Millis>) -> Self {
        let record = Domain { name: "cf-apps".into(), expires_at };
        let domain = record.name.clone();
        Self::new(name, RowKey::Domain(domain.clone()), &record.clone(), move |state| {
            state.domain(&domain).is_some_and(|found| **found == record)
        })
    }
}

/// Rows of every table, with every state a record can be in.
fn rows() -> Vec<GoldenRow> {
    let flag = FeatureFlag::DiegoDocker;
    let placed_on = || Some(CellId::from("cell-1"));
    let claimed = || ActualState::Claimed { instance: instance() };
    let running = || ActualState::Running { instance: instance(), net_info: net_info() };
    let unclaimed = |placement_error: &str| ActualState::Unclaimed {
        placement_error: placement_error.to_owned(),
    };
    let desired = desired_lrp();
    vec![
        // The record of the cluster is the model's own: its salt and its time.
        GoldenRow::new("cluster", RowKey::Cluster, &(0xfeed_cafe_u32, AT), |state| {
            state.now() == AT && state.is_initialised()
        }),
        GoldenRow::new(
            "desired_lrp",
            RowKey::DesiredLrp(desired.process_guid.clone()),
            &desired.clone(),
            move |state| {
                state.desired_lrp(&desired.process_guid).is_some_and(|found| **found == desired)
            },
        ),
        GoldenRow::actual_lrp("unclaimed", Presence::Ordinary, unclaimed("")),
        GoldenRow::actual_lrp("failed", Presence::Ordinary, unclaimed("insufficient resources")),
        GoldenRow::actual_lrp("claimed", Presence::Ordinary, claimed()),
        GoldenRow::actual_lrp("running", Presence::Ordinary, running()),
        GoldenRow::actual_lrp("crashed", Presence::Ordinary, ActualState::Crashed),
        GoldenRow::actual_lrp("evacuating", Presence::Evacuating, running()),
        GoldenRow::actual_lrp("suspect_claimed", Presence::Suspect, claimed()),
        GoldenRow::actual_lrp("suspect_running", Presence::Suspect, running()),
        GoldenRow::task("task_pending", TaskState::Pending { placed_on: None }),
        GoldenRow::task("task_placed", TaskState::Pending { placed_on: placed_on() }),
        GoldenRow::task("task_running", TaskState::Running { cell_id: "cell-1".into() }),
        GoldenRow::task("task_completed", TaskState::Completed { result: result() }),
        GoldenRow::task("task_resolving", TaskState::Resolving { result: result() }),
        GoldenRow::cell("cell_present", CellHealth::Present),
        GoldenRow::cell("cell_missing", CellHealth::Missing { since: AT }),
        GoldenRow::domain("domain", Some(AT)),
        GoldenRow::domain("domain_for_ever", None),
        GoldenRow::new("flag_on", RowKey::FeatureFlag(flag), &(flag, true), move |state| {
            state.is_enabled(flag)
        }),
        GoldenRow::new("flag_off", RowKey::FeatureFlag(flag), &(flag, false), move |state| {
            !state.is_enabled(flag)
        }),
        GoldenRow::lock("lock", LockKind::Lock),
        GoldenRow::lock("presence", LockKind::Presence),
    ]
}

fn tag() -> ModificationTag {
    ModificationTag { epoch: "feedcafe-0000-0000-0007-0001".into(), index: 130 }
}

fn key() -> ActualLrpKey {
    ActualLrpKey { process_guid: "web".into(), index: 300, domain: "cf-apps".into() }
}

fn instance() -> InstanceKey {
    InstanceKey { instance_guid: InstanceGuid::mint(7, 1 << 40, 3), cell_id: "cell-1".into() }
}

fn net_info() -> NetInfo {
    NetInfo {
        address: Ipv4Addr::new(10, 0, 0, 1),
        instance_address: Ipv4Addr::new(10, 88, 0, 2),
        ports: vec![PortMapping { container_port: 8080, host_port: 61001 }],
    }
}

fn result() -> TaskResult {
    TaskResult {
        failed: true,
        failure_reason: "Exited with status 1".to_owned(),
        result: "42".to_owned(),
        first_completed_at: AT,
    }
}

fn digest() -> Digest {
    format!("sha256:{}", "0123456789abcdef".repeat(4)).as_str().try_into().unwrap()
}

fn variables() -> Vec<EnvironmentVariable> {
    vec![EnvironmentVariable { name: "PORT".to_owned(), value: "8080".to_owned() }]
}

fn action() -> Action {
    Action::Run(RunAction {
        path: "/app".to_owned(),
        args: vec!["--verbose".to_owned()],
        dir: "/home".to_owned(),
        user: "vcap".to_owned(),
        env: variables(),
        log_source: "APP/PROC/WEB".to_owned(),
        suppress_log_output: true,
        resource_limits: ResourceLimits { nofile: Some(1024), nproc: None },
        volume_mounted_files: files(),
    })
}

fn desired_lrp() -> DesiredLrp {
    DesiredLrp {
        process_guid: "web".into(),
        domain: "cf-apps".into(),
        log_guid: "log".to_owned(),
        log_source: "APP".to_owned(),
        rootfs: "docker:///library/nginx#1.27".to_owned(),
        rootfs_digest: Some(digest()),
        instances: 2,
        memory_mb: 256,
        disk_mb: 1024,
        max_pids: 64,
        cpu_weight: 50,
        env: variables(),
        action: Some(action()),
        ports: vec![8080, 2222],
        routes: BTreeMap::from([("cf-router".to_owned(), "[{\"port\":8080}]".to_owned())]),
        annotation: "note".to_owned(),
        placement_tags: vec!["ssd".to_owned()],
        modification_tag: tag(),
        setup: Some(every_action()),
        monitor: Some(action()),
        check_definition: Some(checks()),
        start_timeout_ms: 60_000,
        privileged: true,
        egress_rules: egress_rules(),
        cached_dependencies: vec![dependency()],
        image_layers: vec![layer()],
        legacy_download_user: "vcap".to_owned(),
        trusted_system_certificates_path: "/etc/cf".to_owned(),
        volume_mounts: vec![volume()],
        volume_mounted_files: files(),
        network: Some(network()),
        certificate_properties: Some(certificate()),
        image_username: "user".to_owned(),
        image_password: "word".to_owned(),
        sidecars: vec![Sidecar { action: Some(action()), disk_mb: 1, memory_mb: 2 }],
        log_rate_limit: Some(LogRateLimit { bytes_per_second: -1 }),
        metrics_guid: "log".to_owned(),
        metric_tags: metric_tags(),
        update_strategy: UpdateStrategy::Recreate,
        created_at: AT,
        trace_id: "trace".to_owned(),
    }
}

fn definition() -> TaskDefinition {
    TaskDefinition {
        rootfs: "docker:///library/busybox".to_owned(),
        rootfs_digest: None,
        env: variables(),
        action: Some(action()),
        memory_mb: 128,
        disk_mb: 512,
        max_pids: 16,
        cpu_weight: 1,
        log_guid: "log".to_owned(),
        log_source: "TASK".to_owned(),
        annotation: String::new(),
        placement_tags: Vec::new(),
        result_file: "/tmp/result".to_owned(),
        completion_callback_url: "http://10.0.0.1/done".to_owned(),
        privileged: false,
        metrics_guid: "log".to_owned(),
        metric_tags: metric_tags(),
        egress_rules: egress_rules(),
        cached_dependencies: vec![dependency()],
        image_layers: vec![layer()],
        legacy_download_user: "vcap".to_owned(),
        trusted_system_certificates_path: String::new(),
        volume_mounts: vec![volume()],
        volume_mounted_files: files(),
        network: Some(network()),
        certificate_properties: Some(certificate()),
        image_username: "user".to_owned(),
        image_password: "word".to_owned(),
        log_rate_limit: Some(LogRateLimit { bytes_per_second: 1000 }),
        trace_id: "trace".to_owned(),
    }
}

/// Each kind of action once.
fn every_action() -> Action {
    let nested = || Some(Nested::from(action()));
    let log_source = || "LOG".to_owned();
    let many = |actions| ManyActions { actions, log_source: log_source() };
    let actions = vec![
        Action::Download(DownloadAction {
            artifact: "artifact".to_owned(),
            from: "http://10.0.0.1/a.tgz".to_owned(),
            to: "/app".to_owned(),
            cache_key: "key".to_owned(),
            user: "vcap".to_owned(),
            log_source: log_source(),
            checksum_algorithm: "sha256".to_owned(),
            checksum_value: "ab".to_owned(),
        }),
        Action::Upload(UploadAction {
            artifact: String::new(),
            from: "/app".to_owned(),
            to: "http://10.0.0.1/b".to_owned(),
            user: "vcap".to_owned(),
            log_source: log_source(),
        }),
        Action::Timeout(TimeoutAction {
            action: nested(),
            timeout_ms: 1000,
            log_source: log_source(),
        }),
        Action::EmitProgress(EmitProgressAction {
            action: nested(),
            start_message: "s".to_owned(),
            success_message: "t".to_owned(),
            failure_message_prefix: "f".to_owned(),
            log_source: log_source(),
        }),
        Action::Try(TryAction { action: nested(), log_source: log_source() }),
        Action::Parallel(many(vec![nested(), None])),
        Action::Codependent(many(vec![nested()])),
    ];
    Action::Serial(many(actions.into_iter().map(|action| Some(action.into())).collect()))
}

fn checks() -> CheckDefinition {
    let tcp = TcpCheck { port: 8080, connect_timeout_ms: 1, interval_ms: 2 };
    let path = "/".to_owned();
    let http = HttpCheck { port: 8080, request_timeout_ms: 1, path, interval_ms: 2 };
    CheckDefinition {
        checks: vec![Check { tcp_check: Some(tcp), http_check: None }],
        log_source: "HEALTH".to_owned(),
        readiness_checks: vec![Check { tcp_check: None, http_check: Some(http) }],
    }
}

fn egress_rules() -> Vec<EgressRule> {
    let rule = |protocol: &str| EgressRule {
        protocol: protocol.to_owned(),
        destinations: vec!["10.0.0.0/8".to_owned()],
        log: true,
        annotations: vec!["quoth".to_owned()],
        ..EgressRule::default()
    };
    vec![
        EgressRule { ports: vec![80, 443], ..rule("tcp") },
        EgressRule { port_range: Some(PortRange { start: 1, end: 2 }), ..rule("udp") },
        EgressRule { icmp_info: Some(IcmpInfo { kind: 8, code: -1 }), ..rule("icmp") },
    ]
}

fn dependency() -> CachedDependency {
    CachedDependency {
        name: "ca".to_owned(),
        from: "http://10.0.0.1/ca.tgz".to_owned(),
        to: "/ca".to_owned(),
        cache_key: "ca".to_owned(),
        log_source: "LOG".to_owned(),
        checksum_algorithm: "md5".to_owned(),
        checksum_value: "cd".to_owned(),
    }
}

fn layer() -> ImageLayer {
    ImageLayer {
        name: "droplet".to_owned(),
        url: "http://10.0.0.1/droplet".to_owned(),
        destination_path: "/home/vcap".to_owned(),
        layer_type: LayerType::Exclusive,
        media_type: LayerMediaType::Tgz,
        digest_algorithm: DigestAlgorithm::Sha256,
        digest_value: "ef".to_owned(),
    }
}

fn volume() -> VolumeMount {
    VolumeMount {
        driver: "nfs".to_owned(),
        container_dir: "/data".to_owned(),
        mode: "rw".to_owned(),
        shared: Some(SharedDevice { volume_id: "v".to_owned(), mount_config: "{}".to_owned() }),
        dedicated: Some(DedicatedDevice {
            mounter_id: "m".to_owned(),
            mount_config: "{}".to_owned(),
            device_config: "{}".to_owned(),
        }),
    }
}

fn files() -> Vec<MountedFile> {
    vec![MountedFile { path: "key".to_owned(), content: "secret".to_owned() }]
}

fn network() -> Network {
    Network { properties: BTreeMap::from([("policy_group_id".to_owned(), "g".to_owned())]) }
}

fn certificate() -> CertificateProperties {
    CertificateProperties { organizational_unit: vec!["app:web".to_owned()] }
}

fn metric_tags() -> BTreeMap<String, MetricTagValue> {
    let value = |fixed: &str, dynamic| MetricTagValue { fixed: fixed.to_owned(), dynamic };
    BTreeMap::from([
        ("source_id".to_owned(), value("log", DynamicValue::Invalid)),
        ("index".to_owned(), value("", DynamicValue::Index)),
        ("guid".to_owned(), value("", DynamicValue::InstanceGuid)),
    ])
}

fn cell(health: CellHealth) -> Cell {
    Cell {
        cell_id: "cell-1".into(),
        node_id: 1,
        address: Ipv4Addr::new(10, 0, 0, 1),
        zone: "z1".into(),
        capacity: Capacity { memory_mb: 16_384, disk_mb: 1 << 20, containers: 250 },
        rootfs_providers: vec![model::RootfsProvider::arbitrary("docker")],
        volume_drivers: Vec::new(),
        rep_url: "https://10.0.0.1:8889".to_owned(),
        intake: model::Intake::Open,
        placement_tags: vec!["ssd".to_owned()],
        optional_placement_tags: vec!["gpu".to_owned()],
        health,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
