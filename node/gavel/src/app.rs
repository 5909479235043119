//! What an app is here: a desired LRP of the domain `cf-apps`, with its instances, told to people
//! as `cf app` tells it.

use std::sync::Arc;

use api::admin::{Consistency, InstanceUsage, Routing, Unknown, Usage, Waiting};
use model::{ActualLrp, ActualState, DesiredLrp, Presence, ProcessGuid, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Cell, Screen, Style, Table};
use crate::recipe;
use crate::routes;
use crate::units;

/// The domain that Cloud Foundry's apps are in.
pub(crate) const DOMAIN: &str = "cf-apps";

/// What `push` remembers of an app, in its annotation, which Diego leaves to its clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// As it was typed.
    pub(crate) image: String,
    /// How many instances `start` starts.
    pub(crate) instances: i32,
}

impl Note {
    /// Nothing when the LRP was not pushed.
    pub(crate) fn of(lrp: &DesiredLrp) -> Option<Self> {
        serde_json::from_str(&lrp.annotation).ok()
    }

    pub(crate) fn to_annotation(&self) -> String {
        serde_json::to_string(self).expect("two plain fields")
    }
}

/// An app and how it is doing.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) desired: Arc<DesiredLrp>,
    /// By index and presence.
    pub(crate) instances: Vec<Arc<ActualLrp>>,
    /// Why unplaced instances wait, by index.
    waiting: Vec<(u32, Waiting)>,
    /// Why there are none, where a feature flag is off that it needs.
    parked: Option<Refusal>,
    /// What the instances use, where somebody asked.
    usage: Vec<InstanceUsage>,
    /// How people reach apps, where the cluster has routers.
    routing: Option<Routing>,
}

impl App {
    pub(crate) fn new(
        desired: Arc<DesiredLrp>,
        instances: Vec<Arc<ActualLrp>>,
        routing: Option<Routing>,
    ) -> Self {
        Self { desired, instances, waiting: Vec::new(), parked: None, usage: Vec::new(), routing }
    }

    /// Asks for everything that is known of an app.
    ///
    /// # Errors
    ///
    /// As [`Client::read`].
    pub(crate) async fn look(
        client: &mut Client,
        guid: &ProcessGuid,
        consistency: Consistency,
    ) -> Result<Self, Failure> {
        let desired = client.desired_lrp(guid, consistency).await?;
        let instances = client.actual_lrps(Some(guid), consistency).await?;
        let routing = client.routing().await?;
        let mut app = Self::new(desired, instances, routing);
        if consistency == Consistency::Linearizable && app.some_wait() {
            app.waiting = client.waiting_lrps(guid).await?;
            let flags = client.feature_flags(consistency).await?;
            app.parked = recipe::rehearse(&app.desired, &flags)
                .err()
                .filter(|refusal| matches!(refusal, Refusal::FeatureDisabled(_)));
        }
        Ok(app)
    }

    /// Asks what the instances use: it takes a moment, as rates do.
    ///
    /// # Errors
    ///
    /// As [`Client::read`]; a cell that does not answer is none.
    pub(crate) async fn measure(&mut self, client: &mut Client) -> Result<(), Failure> {
        if self.instances.iter().any(|lrp| lrp.instance().is_some()) {
            self.usage = client.lrp_usage(&self.desired.process_guid).await?;
        }
        Ok(())
    }

    /// Nothing where nobody asked, or there is no container.
    fn usage(&self, lrp: &ActualLrp) -> Option<&Result<Usage, Unknown>> {
        let guid = &lrp.instance()?.instance_guid;
        let of_instance = |usage: &&InstanceUsage| usage.instance_guid == *guid;
        self.usage.iter().find(of_instance).map(|usage| &usage.usage)
    }

    /// Why figures are missing, each reason once, with the instances that it concerns. Only of
    /// those that run: what is being started may have no container yet.
    fn unknown_usages(&self) -> Vec<String> {
        let mut seen: Vec<(&str, Vec<String>)> = Vec::new();
        for lrp in self.instances.iter().filter(|lrp| lrp.is_running()) {
            let Some(Err(Unknown(reason))) = self.usage(lrp) else { continue };
            let index = format!("#{}", lrp.key.index);
            match seen.iter_mut().find(|(known, _)| known == reason) {
                Some((_, indices)) => indices.push(index),
                None => seen.push((reason, vec![index])),
            }
        }
        let line = |(reason, indices): (&str, Vec<String>)| {
            format!("no figures of {}: {reason}", indices.join(", "))
        };
        seen.into_iter().map(line).collect()
    }

    fn some_wait(&self) -> bool {
        self.instances.iter().any(|lrp| lrp.is_unclaimed())
            || self.ordinary().count() < self.desired.indices().len()
    }

    /// The rows that count towards the desired instances.
    pub(crate) fn ordinary(&self) -> impl Iterator<Item = &Arc<ActualLrp>> {
        self.instances.iter().filter(|lrp| lrp.presence == Presence::Ordinary)
    }

    /// Indices of which some copy runs.
    pub(crate) fn running(&self) -> usize {
        let mut indices: Vec<u32> =
            self.instances.iter().filter(|lrp| lrp.is_running()).map(|lrp| lrp.key.index).collect();
        indices.sort_unstable();
        indices.dedup();
        indices.len()
    }

    /// The image, as it was typed where that is known.
    pub(crate) fn image(&self) -> String {
        Note::of(&self.desired).map_or_else(|| self.desired.rootfs.clone(), |note| note.image)
    }

    fn requested_state(&self) -> &'static str {
        if self.desired.instances > 0 { "started" } else { "stopped" }
    }

    /// Where the app answers: its routes where it has any and somebody routes, else each host port
    /// of its instances.
    pub(crate) fn routes(&self) -> Vec<String> {
        let urls = routes::urls(&self.desired, self.routing.as_ref());
        if !urls.is_empty() {
            return urls;
        }
        self.instances.iter().flat_map(|lrp| host_ports(&lrp.state)).collect()
    }

    /// Why an instance does not run, and what would help, where that is known.
    fn trouble(&self, lrp: &ActualLrp) -> (String, String) {
        let waiting = self.waiting.iter().find(|(index, _)| *index == lrp.key.index);
        match (&lrp.state, waiting) {
            (ActualState::Unclaimed { .. }, Some((_, waiting))) => {
                (waiting.reason.clone(), waiting.remedy.clone())
            }
            (ActualState::Unclaimed { placement_error }, None) if !placement_error.is_empty() => {
                (placement_error.clone(), String::new())
            }
            (
                ActualState::Unclaimed { .. }
                | ActualState::Claimed { .. }
                | ActualState::Running { .. }
                | ActualState::Crashed,
                _,
            ) => (lrp.crash_reason.clone(), String::new()),
        }
    }

    /// Each thing that stands in the way, once, with how many instances it concerns.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let mut seen: Vec<(String, usize)> = Vec::new();
        for lrp in self.ordinary().filter(|lrp| !lrp.is_running()) {
            let (reason, remedy) = self.trouble(lrp);
            let state = describe_state(&lrp.state);
            let text = match (reason.is_empty(), remedy.is_empty()) {
                (true, _) => state.to_owned(),
                (false, true) => format!("{state}: {reason}"),
                (false, false) => format!("{state}: {reason} ({remedy})"),
            };
            match seen.iter_mut().find(|(known, _)| *known == text) {
                Some((_, count)) => *count += 1,
                None => seen.push((text, 1)),
            }
        }
        let missing = self.desired.indices().len().saturating_sub(self.ordinary().count());
        if missing > 0 {
            let why = self.parked.as_ref().map(|refusal| format!("not to run: {refusal}"));
            seen.push((why.unwrap_or_else(|| "not made yet".to_owned()), missing));
        }
        seen.into_iter()
            .map(|(text, count)| {
                format!("{count} {} {text}", if count == 1 { "is" } else { "are" })
            })
            .collect()
    }

    pub(crate) fn to_json(&self) -> Value {
        let instances: Vec<Value> = self
            .instances
            .iter()
            .map(|lrp| {
                let mut value = api::json::actual_lrp(lrp, Some(&self.desired));
                let waiting = self.waiting.iter().find(|(index, _)| *index == lrp.key.index);
                if let (true, Some((_, waiting))) = (lrp.is_unclaimed(), waiting) {
                    value["waiting_reason"] = waiting.reason.as_str().into();
                    value["waiting_remedy"] = waiting.remedy.as_str().into();
                }
                match self.usage(lrp) {
                    Some(Ok(usage)) => value["usage"] = usage_json(usage),
                    Some(Err(Unknown(reason))) => value["usage_unknown"] = reason.as_str().into(),
                    None => {}
                }
                value
            })
            .collect();
        let mut value = self.summary();
        value["instances"] = instances.into();
        value
    }

    /// What `apps --json` says of it.
    pub(crate) fn summary(&self) -> Value {
        json!({
            "name": self.desired.process_guid,
            "requested_state": self.requested_state(),
            "requested": self.desired.instances,
            "running": self.running(),
            "memory_mb": self.desired.memory_mb,
            "disk_mb": self.desired.disk_mb,
            "image": self.image(),
            "rootfs": self.desired.rootfs,
            "digest": self.desired.rootfs_digest.as_ref().map(ToString::to_string),
            "routes": self.routes(),
        })
    }

    /// What `app` and `push` print.
    pub(crate) fn show(&self, screen: Screen) -> Result<(), Failure> {
        if screen.is_json() {
            return screen.line(self.to_json());
        }
        let desired = &self.desired;
        let field = |name: &str, value: &str| {
            let name = if name.is_empty() { String::new() } else { format!("{name}:") };
            let label = format!("{name:<11}");
            screen.line(format_args!("{}{value}", screen.styled(Style::Bold, &label)))
        };
        field("name", desired.process_guid.as_str())?;
        field("state", self.requested_state())?;
        field("image", &self.image())?;
        if let Some(digest) = &desired.rootfs_digest {
            field("digest", &digest.to_string())?;
        }
        let memory = units::defined_mebibytes(desired.memory_mb);
        let disk = units::defined_mebibytes(desired.disk_mb);
        field("usage", &format!("{memory} memory, {disk} disk each"))?;
        field("instances", &format!("{}/{}", self.running(), desired.instances))?;
        for (position, route) in self.routes().iter().enumerate() {
            field(if position == 0 { "routes" } else { "" }, &format!("http://{route}"))?;
        }
        if let Some(parked) = &self.parked {
            field("why", &parked.to_string())?;
        }
        if self.instances.is_empty() {
            return Ok(());
        }
        screen.line("")?;
        screen.table(&self.table())?;
        self.unknown_usages().iter().try_for_each(|line| screen.line(line))
    }

    /// Processor, memory and disk, as `cf app` has them.
    fn figures(&self, usage: &Usage) -> [String; 3] {
        let of = |used: u64, limit: i32| {
            format!("{} of {}", units::bytes(used), units::defined_mebibytes(limit))
        };
        [
            format!("{}.{}%", usage.cpu_millicores / 10, usage.cpu_millicores % 10),
            of(usage.memory_bytes, self.desired.memory_mb),
            usage.disk_bytes.map(|bytes| of(bytes, self.desired.disk_mb)).unwrap_or_default(),
        ]
    }

    fn table(&self) -> Table {
        let heading = [
            "", "state", "since", "cpu", "memory", "disk", "cell", "address", "ports", "crashes",
            "why", "remedy",
        ];
        let mut table = Table::new(heading);
        let now = units::now();
        for lrp in &self.instances {
            let (why, remedy) = self.trouble(lrp);
            let state = match lrp.presence {
                Presence::Ordinary => describe_state(&lrp.state).to_owned(),
                Presence::Evacuating | Presence::Suspect => format!(
                    "{} ({})",
                    describe_state(&lrp.state),
                    lrp.presence.name().to_ascii_lowercase()
                ),
            };
            let address = match &lrp.state {
                ActualState::Running { net_info, .. } => net_info.instance_address.to_string(),
                ActualState::Unclaimed { .. }
                | ActualState::Claimed { .. }
                | ActualState::Crashed => String::new(),
            };
            let crashes = match lrp.crash_count {
                0 => "".into(),
                count => Cell::styled(Style::Bad, count.to_string()),
            };
            let [cpu, memory, disk] = match self.usage(lrp) {
                Some(Ok(usage)) => self.figures(usage),
                Some(Err(_)) | None => Default::default(),
            };
            table.row([
                format!("#{}", lrp.key.index).into(),
                Cell::styled(state_style(&lrp.state), state),
                units::ago(lrp.since, now).into(),
                cpu.into(),
                memory.into(),
                disk.into(),
                lrp.instance().map_or("", |instance| instance.cell_id.as_str()).into(),
                address.into(),
                ports(&lrp.state).into(),
                crashes,
                why.into(),
                remedy.into(),
            ]);
        }
        table
    }
}

/// What is not counted is null.
fn usage_json(usage: &Usage) -> Value {
    json!({
        "cpu_millicores": usage.cpu_millicores,
        "cpu_ns": usage.cpu_ns,
        "memory_bytes": usage.memory_bytes,
        "disk_bytes": usage.disk_bytes,
        "inodes": usage.inodes,
        "pids": usage.pids,
        "age_ms": usage.age_ms,
    })
}

/// The word that Cloud Foundry has for a state.
pub(crate) fn describe_state(state: &ActualState) -> &'static str {
    match state {
        ActualState::Unclaimed { .. } => "waiting",
        ActualState::Claimed { .. } => "starting",
        ActualState::Running { .. } => "running",
        ActualState::Crashed => "crashed",
    }
}

pub(crate) fn state_style(state: &ActualState) -> Style {
    match state {
        ActualState::Unclaimed { .. } | ActualState::Claimed { .. } => Style::Wait,
        ActualState::Running { .. } => Style::Good,
        ActualState::Crashed => Style::Bad,
    }
}

/// Host ports and the container's behind them: `61001->8080`.
pub(crate) fn ports(state: &ActualState) -> String {
    match state {
        ActualState::Running { net_info, .. } => {
            let pairs = net_info.ports.iter();
            let pairs = pairs.map(|port| format!("{}->{}", port.host_port, port.container_port));
            pairs.collect::<Vec<_>>().join(" ")
        }
        ActualState::Unclaimed { .. } | ActualState::Claimed { .. } | ActualState::Crashed => {
            String::new()
        }
    }
}

fn host_ports(state: &ActualState) -> Vec<String> {
    match state {
        ActualState::Running { net_info, .. } => {
            let address = net_info.address;
            net_info.ports.iter().map(|port| format!("{address}:{}", port.host_port)).collect()
        }
        ActualState::Unclaimed { .. } | ActualState::Claimed { .. } | ActualState::Crashed => {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_their_limits_and_what_is_not_counted_is_left_out() {
        let desired = DesiredLrp { memory_mb: 64, disk_mb: 0, ..DesiredLrp::default() };
        let app = App::new(Arc::new(desired), Vec::new(), None);
        let usage = Usage {
            cpu_millicores: 1234,
            memory_bytes: 3 << 20,
            disk_bytes: Some(512),
            ..Usage::default()
        };
        assert_eq!(app.figures(&usage), ["123.4%", "3.0 MiB of 64M", "512 B of unlimited"]);
        let uncounted = Usage { disk_bytes: None, ..usage };
        assert_eq!(app.figures(&uncounted)[2], "");
        assert!(usage_json(&uncounted)["disk_bytes"].is_null());
    }
}
