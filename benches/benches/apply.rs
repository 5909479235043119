//! Applying each kind of command to a state of 100 cells and 10,000 running instances, as one
//! proposal of its own, journal taken: what a committed entry costs every node beside its bytes.

use benches::{Cluster, app, cell, net_info, task};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use model::{
    ActualLrpId, ActualLrpKey, Command, DesiredLrpUpdate, FeatureFlag, InstanceKey, Millis,
    ProcessGuid,
};

/// An instance that runs, by its app's number.
fn running(cluster: &Cluster, app: u32, index: u32) -> (ActualLrpKey, InstanceKey) {
    let process_guid = ProcessGuid::from(format!("app-{app:06}").as_str());
    let row = cluster.state.actual_lrp(&ActualLrpId::ordinary(process_guid, index));
    let row = row.expect("it was desired");
    (row.key.clone(), row.instance().expect("it runs").clone())
}

fn apply(criterion: &mut Criterion) {
    let mut settled = Cluster::of_cells(100);
    settled.desire(10_000);
    settled.settle();
    let guid = |number: u32| ProcessGuid::from(format!("app-{number:06}").as_str());
    let update = |update: DesiredLrpUpdate| Command::UpdateDesiredLrp {
        process_guid: guid(7),
        update: Box::new(update),
    };
    let desire = |instances| Command::DesireLrp { desired_lrp: Box::new(app(999_999, instances)) };
    let desire_task = || Command::DesireTask {
        task_guid: "job".into(),
        domain: "cf-tasks".into(),
        definition: Box::new(task()),
    };
    let cell_id = cell(5).cell_id;
    let place =
        |index| Command::PlaceLrp { process_guid: guid(999_999), index, cell_id: cell_id.clone() };
    let place_task = || Command::PlaceTask { task_guid: "job".into(), cell_id: cell_id.clone() };
    let start_task = || Command::StartTask { task_guid: "job".into(), cell_id: cell_id.clone() };
    let complete = || Command::CompleteTask {
        task_guid: "job".into(),
        cell_id: cell_id.clone(),
        failed: false,
        failure_reason: String::new(),
        result: String::new(),
    };
    let (key, instance) = running(&settled, 7, 3);
    let crash = || Command::CrashLrp {
        key: key.clone(),
        instance: instance.clone(),
        reason: "APP/PROC/WEB: Exited with status 1".to_owned(),
    };
    let remove = || Command::RemoveLrp { key: key.clone(), instance: instance.clone() };
    let mut claimed = settled.clone();
    claimed.propose(vec![desire(1)]);
    claimed.propose(vec![place(0)]);
    let (new_key, new_instance) = claimed.claimed().remove(0);
    let start = || Command::StartLrp {
        key: new_key.clone(),
        instance: new_instance.clone(),
        net_info: net_info(),
        routable: true,
    };

    let mut group = criterion.benchmark_group("apply");
    // What came before, and the command.
    let cases: Vec<(&str, Vec<Command>, Command)> = vec![
        (
            "UpsertDomain",
            vec![],
            Command::UpsertDomain { domain: "cf-apps".into(), ttl: Some(Millis::from_secs(120)) },
        ),
        (
            "SetFeatureFlag",
            vec![],
            Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled: false },
        ),
        ("DesireLrp, 1 instance", vec![], desire(1)),
        ("DesireLrp, 100 instances", vec![], desire(100)),
        (
            "UpdateDesiredLrp, annotation",
            vec![],
            update(DesiredLrpUpdate {
                annotation: Some("x".repeat(256)),
                ..DesiredLrpUpdate::default()
            }),
        ),
        (
            "UpdateDesiredLrp, 50 to 51 instances",
            vec![],
            update(DesiredLrpUpdate { instances: Some(51), ..DesiredLrpUpdate::default() }),
        ),
        (
            "RemoveDesiredLrp, 50 instances",
            vec![],
            Command::RemoveDesiredLrp { process_guid: guid(7) },
        ),
        ("PlaceLrp", vec![desire(1)], place(0)),
        ("StartLrp", vec![desire(1), place(0)], start()),
        ("CrashLrp", vec![], crash()),
        ("RemoveLrp", vec![], remove()),
        ("RetireLrp", vec![], Command::RetireLrp { process_guid: guid(7), index: 3 }),
        ("DesireTask", vec![], desire_task()),
        ("PlaceTask", vec![desire_task()], place_task()),
        ("StartTask", vec![desire_task(), place_task()], start_task()),
        ("CompleteTask", vec![desire_task(), place_task(), start_task()], complete()),
        ("CellMissing", vec![], Command::CellMissing { cell_id: cell_id.clone() }),
        ("RegisterCell", vec![], Command::RegisterCell { cell: Box::new(cell(100)) }),
    ];
    for (name, before, command) in cases {
        let mut cluster = settled.clone();
        for command in before {
            cluster.propose(vec![command]);
        }
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || (cluster.clone(), vec![command.clone()]),
                |(mut cluster, commands)| {
                    cluster.propose(commands);
                    cluster
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
