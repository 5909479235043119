use expect_test::expect;
use model::metric_tag::{DynamicValue, MetricTagValue};
use model::{Capacity, CellHealth};

use super::*;

#[test]
fn a_cells_state_reads_as_diegos() {
    let cell = Cell {
        cell_id: "cell-1".into(),
        node_id: 1,
        address: [10, 0, 0, 1].into(),
        zone: "z1".into(),
        capacity: Capacity { memory_mb: 1024, disk_mb: 2048, containers: 10 },
        rootfs_providers: vec![
            RootfsProvider::arbitrary("docker"),
            RootfsProvider::FixedSet {
                scheme: "preloaded".to_owned(),
                stacks: vec!["cflinuxfs4".to_owned()],
            },
        ],
        placement_tags: vec!["ssd".to_owned()],
        optional_placement_tags: Vec::new(),
        volume_drivers: vec!["local".to_owned()],
        health: CellHealth::Present,
        intake: Intake::Open,
        rep_url: "https://10.0.0.1:8889".to_owned(),
    };
    let load =
        CellLoad { memory_mb: 24, disk_mb: 48, containers: 3, starting: 1, ..CellLoad::default() };
    expect![[r#"
        {
          "AvailableResources": {
            "Containers": 7,
            "DiskMB": 2000,
            "MemoryMB": 1000
          },
          "Evacuating": false,
          "LRPs": [],
          "OptionalPlacementTags": [],
          "PlacementTags": [
            "ssd"
          ],
          "ProxyMemoryAllocationMB": 0,
          "RootFSProviders": {
            "docker": {
              "type": "arbitrary"
            },
            "preloaded": {
              "set": {
                "cflinuxfs4": {}
              },
              "type": "fixed_set"
            }
          },
          "StartingContainerCount": 1,
          "Tasks": [],
          "TotalResources": {
            "Containers": 10,
            "DiskMB": 2048,
            "MemoryMB": 1024
          },
          "VolumeDrivers": [
            "local"
          ],
          "Zone": "z1",
          "cell_id": "cell-1",
          "cell_index": 1,
          "rep_url": "https://10.0.0.1:8889"
        }"#]]
    .assert_eq(
        &serde_json::to_string_pretty(&cell_state(&cell, &load, Vec::new(), Vec::new())).unwrap(),
    );
}

#[test]
fn metrics_are_known_by_their_source() {
    let tag = |text: &str| {
        let value = MetricTagValue { fixed: text.to_owned(), dynamic: DynamicValue::Invalid };
        [("source_id".to_owned(), value)].into()
    };
    let lrp = DesiredLrp::default();
    assert_eq!(metric_guid(&lrp), "");
    let tagged = DesiredLrp { metric_tags: tag("app"), ..lrp };
    assert_eq!(metric_guid(&tagged), "app");
    let named = DesiredLrp { metrics_guid: "guid".to_owned(), ..tagged };
    assert_eq!(metric_guid(&named), "guid");
}
