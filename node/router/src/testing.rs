//! A small cluster, and something that follows its events, for tests.

use std::sync::Arc;

use model::{
    ActualLrp, ActualLrpId, Capacity, Cell, CellHealth, Command, DesiredLrp, Event, FeatureFlag,
    Intake, Millis, NetInfo, PortMapping, ProcessGuid, RootfsProvider, Stamp, State,
};
use serde_json::{Value, json};

/// What is made from a state, and follows its events.
pub(crate) trait View {
    fn of(state: &State) -> Self;
    fn follow(&mut self, event: &Event);
    /// All that it says.
    fn show(&self) -> String;
    /// Of how many apps it knows.
    fn apps(&self) -> usize;
}

/// The cluster of two cells, and the view that follows it event by event.
pub(crate) struct World<V> {
    pub(crate) state: State,
    pub(crate) view: V,
    index: u64,
}

impl<V: View> World<V> {
    pub(crate) fn new() -> Self {
        let mut world = Self { state: State::new(), view: V::of(&State::new()), index: 0 };
        world.does(Command::InitCluster { salt: 1 });
        world.does(Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled: true });
        for node_id in [1, 2] {
            let cell = Cell {
                cell_id: format!("c{node_id}").as_str().into(),
                node_id,
                address: [10, 0, 0, u8::try_from(node_id).unwrap()].into(),
                zone: "z".into(),
                capacity: Capacity { memory_mb: 10_000, disk_mb: 10_000, containers: 100 },
                rootfs_providers: vec![RootfsProvider::arbitrary("docker")],
                placement_tags: vec![],
                optional_placement_tags: vec![],
                volume_drivers: vec![],
                rep_url: String::new(),
                health: CellHealth::Present,
                intake: Intake::Open,
            };
            world.does(Command::RegisterCell { cell: Box::new(cell) });
        }
        world
    }

    pub(crate) fn does(&mut self, command: Command) {
        self.index += 1;
        let stamp = Stamp { log_index: self.index, position: 0, at: Millis(self.index) };
        let applied = model::apply(&mut self.state, stamp, command).unwrap();
        applied.events.iter().for_each(|event| self.view.follow(event));
        let anew = V::of(&self.state);
        assert_eq!(self.view.show(), anew.show(), "following is as good as reading anew");
        assert_eq!(self.view.apps(), anew.apps(), "nothing is kept that is over");
    }

    /// An app, of which one instance runs for each port given, on alternating cells.
    pub(crate) fn app(&mut self, name: &str, routes: &Value, host_ports: &[u16]) {
        let desired: DesiredLrp = serde_json::from_value(json!({
            "process_guid": name, "domain": "d", "rootfs": "docker:///a", "ports": [8080, 9090],
            "action": {"run": {"path": "/a", "user": "root"}},
            "instances": host_ports.len(), "memory_mb": 1, "disk_mb": 1,
            "routes": {"cf-router": routes.to_string()},
        }))
        .unwrap();
        self.does(Command::DesireLrp { desired_lrp: Box::new(desired) });
        for (index, port) in (0..).zip(host_ports) {
            let process_guid = ProcessGuid::from(name);
            let cell_id = if index % 2 == 0 { "c1" } else { "c2" }.into();
            self.does(Command::PlaceLrp { process_guid, index, cell_id });
            self.run(name, index, *port, true);
        }
    }

    pub(crate) fn row(&self, name: &str, index: u32) -> Arc<ActualLrp> {
        let id = ActualLrpId::ordinary(ProcessGuid::from(name), index);
        Arc::clone(self.state.actual_lrp(&id).unwrap())
    }

    pub(crate) fn run(&mut self, name: &str, index: u32, port: u16, routable: bool) {
        let row = self.row(name, index);
        let instance = row.instance().unwrap().clone();
        let address = self.state.cell(&instance.cell_id).unwrap().address;
        let ports = vec![
            PortMapping { container_port: 8080, host_port: port },
            PortMapping { container_port: 9090, host_port: port + 1 },
        ];
        let net_info = NetInfo { address, instance_address: [10, 88, 0, 2].into(), ports };
        self.does(Command::StartLrp { key: row.key.clone(), instance, net_info, routable });
    }
}

pub(crate) fn route(hostnames: &[&str], port: u16) -> Value {
    json!([{ "hostnames": hostnames, "port": port }])
}
