//! Images from a real registry run as they say they want to.

use tests::cluster::{Cluster, SAMPLE};
use tests::registry::{REGISTRY, Registry};

#[test]
fn an_image_from_a_real_registry_runs_as_its_config_says() {
    let cluster = Cluster::start();
    let registry = Registry::start(cluster.host());
    for format in ["oci", "v2s2"] {
        registry.push(format, format);
        let pushed =
            cluster.done(&["push", format, "-o", &format!("{REGISTRY}/{format}"), "-i", "3"]);
        assert!(pushed.contains("instances: 3/3"), "{pushed}");
        let mut answers = cluster.answers(format, 3);
        answers.sort_unstable();
        for (index, answer) in answers.iter().enumerate() {
            for expected in
                ["greeting moin", "user 1234", "dir /app", "args one", "the removed file is gone"]
            {
                assert!(answer.contains(expected), "{expected}: {answer}");
            }
            assert!(answer.contains(&format!("index {index}\n")), "{answer}");
            // Root in the container is nobody on the host.
            let map = answer.lines().find_map(|line| line.strip_prefix("root is ")).unwrap();
            let outside: u64 = map.split_whitespace().nth(1).unwrap().parse().unwrap();
            assert!(outside >= 65_536, "{answer}");
        }
        let cells: std::collections::BTreeSet<String> =
            cluster.instances(format, 3).into_iter().map(|instance| instance.cell_id).collect();
        assert_eq!(cells.len(), 3, "an instance on each cell");
        let logs = cluster.done(&["logs", format, "--recent"]);
        for index in 0..3 {
            assert!(
                logs.contains(&format!("[APP/PROC/WEB/{index}] OUT serving on 8080")),
                "{logs}"
            );
            assert!(logs.contains(&format!("[APP/PROC/WEB/{index}] ERR complaining")), "{logs}");
        }
    }
}

#[test]
fn the_sample_runs_scales_and_leaves_nothing_behind() {
    let mut cluster = Cluster::start();
    let _ = cluster.done(&["push", "hello", "-o", SAMPLE, "-i", "3"]);
    let answers = cluster.answers("hello", 3);
    assert!(answers.iter().all(|answer| answer.starts_with("Hello from instance")), "{answers:?}");
    let _ = cluster.done(&["scale", "hello", "-i", "5"]);
    assert_eq!(cluster.answers("hello", 5).len(), 5);
    let _ = cluster.done(&["scale", "hello", "-i", "1"]);
    assert_eq!(cluster.instances("hello", 1)[0].index, 0);
    let _ = cluster.done(&["delete", "hello"]);
    assert_eq!(cluster.instances("hello", 0), []);
    let _ = cluster.done(&["push", "again", "-o", SAMPLE]);
    cluster.interrupt();
    assert_eq!(cluster.host().traces(), Vec::<String>::new());
}
