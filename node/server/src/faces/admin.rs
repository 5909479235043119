//! The admin service: [`api::Admin`] in terms of the agent.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::RequestError;
use agent::members::{MemberChange as Change, MemberChangeError};
use api::admin::{
    CellStatus, ClusterStatus, Consistency, ImageUser, InstanceUsage, LayerOrigins, LogChunk,
    LogCursor, LogSource, Member, MemberChange, Role, Routing, StagedImage, Usage, Waiting,
};
use api::limits::{STAGING_MAX, WAIT_MAX};
use api::{Admin, Error};
use container::image::{self, Credentials, Reference};
use model::{
    ActualLrp, CellId, Command, DesiredLrp, DesiredLrpUpdate, Domain, DomainName, FeatureFlag,
    Millis, ProcessGuid, State, Task, TaskDefinition, TaskGuid,
};
use replica::replica::ProposeError;
use tarpc::context::Context;

use crate::faces::{logs, staging, usage};
use crate::limits::STAGING_FAREWELL;
use crate::secrets::Owner;
use crate::staging as staging_task;
use crate::world::NodeAgent;

/// One node's admin service.
#[derive(Clone, Debug)]
pub(crate) struct AdminFace {
    agent: NodeAgent,
    /// Where this node is told to route; none where it is no router.
    routing: Option<Routing>,
}

impl AdminFace {
    pub(crate) fn new(agent: NodeAgent, routing: Option<Routing>) -> Self {
        Self { agent, routing }
    }

    /// Proposes on a task of its own: a client that hangs up must not stop a change half-way.
    async fn change(&self, command: Command) -> Result<(), Error> {
        let agent = self.agent.clone();
        let proposed = tokio::spawn(async move { agent.propose(command).await }).await;
        match proposed {
            Ok(Ok(_changed)) => Ok(()),
            Ok(Err(error)) => Err(api_error(error)),
            Err(_) => Err(Error::Unknown("the node failed while it proposed".to_owned())),
        }
    }

    async fn read(&self, consistency: Consistency) -> Result<State, Error> {
        match consistency {
            Consistency::Stale => Ok(self.agent.read_stale().state),
            Consistency::Linearizable => match self.agent.read().await {
                Ok(reading) => Ok(reading.state),
                Err(error) => Err(Error::Unavailable(error.to_string())),
            },
        }
    }

    /// What a root file system's tag means now; nothing for one that is not a Docker image.
    ///
    /// By this node itself, without a task: what desires an LRP or a task by its definition is below
    /// staging, in Diego as well, and a task that stages each task would be twice as many.
    async fn resolve_rootfs(
        &self,
        rootfs: &str,
        user: Option<Credentials>,
    ) -> Result<Option<model::Digest>, Error> {
        if !rootfs.starts_with("docker:") {
            return Ok(None);
        }
        let image_error = |error: image::Error| Error::Image(error.to_string());
        let reference = Reference::from_rootfs(rootfs).map_err(image_error)?;
        let images = self.agent.world().containers.images();
        let resolved = images.resolve(&reference, user.as_ref()).await.map_err(image_error)?;
        let digest = model::Digest::try_from(resolved.digest.to_string());
        digest.map(Some).map_err(|error| Error::Image(error.to_string()))
    }

    fn seal(&self, owner: Owner<'_>, username: &str, password: &mut String) -> Result<(), Error> {
        super::seal(&self.agent, owner, username, password).map_err(Error::Invalid)
    }

    fn layers(&self) -> LayerOrigins {
        let origins = self.agent.world().containers.images().origins();
        let image::Origins { registry: registries, neighbours: cells, sent } = origins;
        LayerOrigins { registries, cells, sent }
    }

    /// Fails before anything is resolved where the flag would refuse it anyway.
    async fn check_docker_allowed(&self, rootfs: &str) -> Result<(), Error> {
        if !self.read(Consistency::Stale).await?.allows(rootfs) {
            // This node may be behind: the answer that counts is linearizable.
            if !self.read(Consistency::Linearizable).await?.allows(rootfs) {
                let flag = FeatureFlag::DiegoDocker;
                return Err(Error::Refused(model::Refusal::FeatureDisabled(flag)));
            }
        }
        Ok(())
    }
}

impl Admin for AdminFace {
    async fn desire_lrp(self, _: Context, mut desired_lrp: Box<DesiredLrp>) -> Result<(), Error> {
        self.check_docker_allowed(&desired_lrp.rootfs).await?;
        if staging_task::is_rootfs(&desired_lrp.rootfs) {
            let reason = format!("{} is a task's, and no instance's", desired_lrp.rootfs);
            return Err(Error::Invalid(reason));
        }
        let user = user(&desired_lrp.image_username, &desired_lrp.image_password);
        let lrp = &mut *desired_lrp;
        self.seal(Owner::Lrp(&lrp.process_guid), &lrp.image_username, &mut lrp.image_password)?;
        if lrp.rootfs_digest.is_none() {
            lrp.rootfs_digest = self.resolve_rootfs(&lrp.rootfs, user).await?;
        }
        self.change(Command::DesireLrp { desired_lrp }).await
    }

    async fn update_desired_lrp(
        self,
        _: Context,
        process_guid: ProcessGuid,
        mut update: Box<DesiredLrpUpdate>,
    ) -> Result<(), Error> {
        if let (Some(username), Some(password)) =
            (&update.image_username, &mut update.image_password)
        {
            self.seal(Owner::Lrp(&process_guid), username, password)?;
        }
        self.change(Command::UpdateDesiredLrp { process_guid, update }).await
    }

    async fn remove_desired_lrp(self, _: Context, process_guid: ProcessGuid) -> Result<(), Error> {
        self.change(Command::RemoveDesiredLrp { process_guid }).await
    }

    async fn desired_lrps(
        self,
        _: Context,
        consistency: Consistency,
    ) -> Result<Vec<Arc<DesiredLrp>>, Error> {
        Ok(self.read(consistency).await?.desired_lrps().map(without_password).collect())
    }

    async fn desired_lrp(
        self,
        _: Context,
        guid: ProcessGuid,
        consistency: Consistency,
    ) -> Result<Arc<DesiredLrp>, Error> {
        let state = self.read(consistency).await?;
        let found = state.desired_lrp(&guid).map(without_password);
        found.ok_or(Error::Refused(model::Refusal::DesiredLrpNotFound(guid)))
    }

    async fn actual_lrps(
        self,
        _: Context,
        of: Option<ProcessGuid>,
        consistency: Consistency,
    ) -> Result<Vec<Arc<ActualLrp>>, Error> {
        let state = self.read(consistency).await?;
        Ok(match of {
            Some(guid) => state.actual_lrps_of(&guid).cloned().collect(),
            None => state.actual_lrps().cloned().collect(),
        })
    }

    async fn retire_actual_lrp(
        self,
        _: Context,
        process_guid: ProcessGuid,
        index: u32,
    ) -> Result<(), Error> {
        self.change(Command::RetireLrp { process_guid, index }).await
    }

    async fn waiting_lrps(
        self,
        _: Context,
        guid: ProcessGuid,
    ) -> Result<Vec<(u32, Waiting)>, Error> {
        let waiting = self.agent.waiting_lrps(guid).await;
        Ok(waiting.into_iter().map(|(index, why)| (index, api_waiting(why))).collect())
    }

    async fn desire_task(
        self,
        _: Context,
        task_guid: TaskGuid,
        domain: DomainName,
        mut definition: Box<TaskDefinition>,
    ) -> Result<(), Error> {
        self.check_docker_allowed(&definition.rootfs).await?;
        let user = user(&definition.image_username, &definition.image_password);
        let it = &mut *definition;
        self.seal(Owner::Task(&task_guid), &it.image_username, &mut it.image_password)?;
        if it.rootfs_digest.is_none() {
            it.rootfs_digest = self.resolve_rootfs(&it.rootfs, user).await?;
        }
        self.change(Command::DesireTask { task_guid, domain, definition }).await
    }

    async fn tasks(self, _: Context, consistency: Consistency) -> Result<Vec<Arc<Task>>, Error> {
        Ok(self.read(consistency).await?.tasks().map(task_without_password).collect())
    }

    async fn task(
        self,
        _: Context,
        guid: TaskGuid,
        consistency: Consistency,
    ) -> Result<Arc<Task>, Error> {
        let state = self.read(consistency).await?;
        let found = state.task(&guid).map(task_without_password);
        found.ok_or(Error::Refused(model::Refusal::TaskNotFound(guid)))
    }

    async fn cancel_task(self, _: Context, task_guid: TaskGuid) -> Result<(), Error> {
        self.change(Command::CancelTask { task_guid }).await
    }

    async fn resolving_task(self, _: Context, task_guid: TaskGuid) -> Result<(), Error> {
        self.change(Command::ResolvingTask { task_guid }).await
    }

    async fn delete_task(self, _: Context, task_guid: TaskGuid) -> Result<(), Error> {
        self.change(Command::DeleteTask { task_guid }).await
    }

    async fn waiting_task(self, _: Context, guid: TaskGuid) -> Result<Option<Waiting>, Error> {
        Ok(self.agent.waiting_task(guid).await.map(api_waiting))
    }

    async fn domains(
        self,
        _: Context,
        consistency: Consistency,
    ) -> Result<Vec<Arc<Domain>>, Error> {
        Ok(self.read(consistency).await?.domains().cloned().collect())
    }

    async fn upsert_domain(
        self,
        _: Context,
        domain: DomainName,
        ttl_secs: u64,
    ) -> Result<(), Error> {
        // Diego: a TTL of 0 never expires.
        let ttl = (ttl_secs > 0).then(|| Millis(ttl_secs.saturating_mul(1000)));
        self.change(Command::UpsertDomain { domain, ttl }).await
    }

    async fn feature_flags(
        self,
        _: Context,
        consistency: Consistency,
    ) -> Result<Vec<(FeatureFlag, bool)>, Error> {
        let state = self.read(consistency).await?;
        Ok(FeatureFlag::ALL.map(|flag| (flag, state.is_enabled(flag))).to_vec())
    }

    async fn set_feature_flag(
        self,
        _: Context,
        flag: FeatureFlag,
        enabled: bool,
    ) -> Result<(), Error> {
        self.change(Command::SetFeatureFlag { flag, enabled }).await
    }

    async fn cells(self, _: Context, consistency: Consistency) -> Result<Vec<CellStatus>, Error> {
        let state = self.read(consistency).await?;
        let status = |cell: &Arc<model::Cell>| {
            let load = state.load(&cell.cell_id).cloned().unwrap_or_default();
            CellStatus {
                cell: Arc::clone(cell),
                memory_mb_used: load.memory_mb,
                disk_mb_used: load.disk_mb,
                lrps: u32::try_from(load.lrps.len()).unwrap_or(u32::MAX),
                tasks: u32::try_from(load.tasks.len()).unwrap_or(u32::MAX),
            }
        };
        Ok(state.cells().map(status).collect())
    }

    async fn evacuate_cell(
        self,
        _: Context,
        cell_id: CellId,
        timeout_ms: u64,
    ) -> Result<(), Error> {
        self.change(Command::EvacuateCell { cell_id, timeout: Millis(timeout_ms) }).await
    }

    async fn open_cell(self, _: Context, cell_id: CellId) -> Result<(), Error> {
        self.change(Command::OpenCell { cell_id }).await
    }

    async fn stage_image(
        self,
        context: Context,
        app: ProcessGuid,
        image: String,
        user: Option<ImageUser>,
    ) -> Result<StagedImage, Error> {
        let reference = staging_task::read_reference(&image);
        let reference = reference.map_err(|error| Error::Image(error.to_string()))?;
        self.check_docker_allowed(&reference.to_rootfs()).await?;
        let user = user.map(|ImageUser { username, password }| Credentials { username, password });
        let wish = staging::Wish { app, reference, user };
        // So that the client hears why, and not only that its time is up.
        let left = context.deadline.saturating_duration_since(Instant::now());
        let patience = left.saturating_sub(STAGING_FAREWELL).min(STAGING_MAX);
        let secrets = self.agent.world().containers.secrets();
        staging::stage(&self.agent, secrets, &wish, patience).await
    }

    async fn logs(
        self,
        _: Context,
        source: LogSource,
        from: Option<LogCursor>,
        follow: bool,
    ) -> Result<LogChunk, Error> {
        logs::of_source(&self.agent, source, from, follow).await
    }

    async fn cell_logs(
        self,
        _: Context,
        on: CellId,
        container: String,
        position: u64,
        follow: bool,
    ) -> Result<LogChunk, Error> {
        logs::of_container(&self.agent, &on, &container, position, follow).await
    }

    async fn lrp_usage(self, _: Context, guid: ProcessGuid) -> Result<Vec<InstanceUsage>, Error> {
        usage::of_process(&self.agent, &guid).await
    }

    async fn cell_usage(
        self,
        _: Context,
        on: CellId,
        containers: Vec<String>,
    ) -> Result<Vec<Option<Usage>>, Error> {
        usage::of_containers(&self.agent, &on, &containers).await
    }

    async fn wait_applied(self, _: Context, index: u64) -> Result<u64, Error> {
        Ok(wait_applied(&self.agent, index, WAIT_MAX).await)
    }

    async fn cluster_status(self, _: Context) -> Result<ClusterStatus, Error> {
        let status = self.agent.replica().status();
        let role = |member: &replica::status::Member| match member.voter {
            _ if status.leader == Some(member.id) => Role::Leader,
            true => Role::Voter,
            false => Role::Learner,
        };
        let members = status.members.iter().map(async |member| {
            let progress = self.agent.progress_of(member.id).await;
            Member {
                node_id: member.id,
                name: member.node.name.clone(),
                address: member.node.address.clone(),
                role: role(member),
                applied_index: progress.map(|progress| progress.applied_index),
                overlooked: progress.map(|progress| progress.overlooked),
            }
        });
        let members = futures_util::future::join_all(members).await;
        Ok(ClusterStatus {
            node_id: status.id,
            term: status.term,
            leader: status.leader,
            applied_index: status.applied.unwrap_or(0),
            last_log_index: status.last_log.unwrap_or(0),
            members,
            layers: self.layers(),
        })
    }

    async fn transfer_leadership(self, _: Context, to: u64) -> Result<(), Error> {
        let status = self.agent.replica().status();
        if !status.members.iter().any(|member| member.id == to && member.voter) {
            return Err(Error::Invalid(format!("node {to} is no voter, and cannot lead")));
        }
        let asked = self.agent.transfer_leadership(to).await;
        asked.map_err(|error| Error::Unavailable(error.to_string()))
    }

    /// On a task of its own, as any change.
    async fn change_members(self, _: Context, change: MemberChange) -> Result<u64, Error> {
        let change = match change {
            MemberChange::Join(address) => Change::Join(address),
            MemberChange::Leave(id) => Change::Leave(id),
            MemberChange::Promote(id) => Change::Promote(id),
            MemberChange::Demote(id) => Change::Demote(id),
        };
        let agent = self.agent.clone();
        match tokio::spawn(async move { agent.change_members(change).await }).await {
            Ok(Ok(id)) => Ok(id),
            Ok(Err(MemberChangeError::Refused(reason))) => Err(Error::Invalid(reason)),
            Ok(Err(MemberChangeError::NotNow(reason))) => Err(Error::Unavailable(reason)),
            Ok(Err(MemberChangeError::Unknown(reason))) => Err(Error::Unknown(reason)),
            Err(_) => Err(Error::Unknown("the node failed while it changed them".to_owned())),
        }
    }

    async fn external_address(self, _: Context) -> Result<Ipv4Addr, Error> {
        Ok(self.agent.cell().address)
    }

    async fn routing(self, _: Context) -> Result<Option<Routing>, Error> {
        Ok(self.routing)
    }
}

/// Waits until this node has applied an entry after `index`, or for `patience`.
pub(crate) async fn wait_applied(agent: &NodeAgent, index: u64, patience: Duration) -> u64 {
    let mut watcher = agent.replica().watch();
    let moved = async {
        while let Some(standing) = watcher.changed().await {
            if standing.applied > Some(index) {
                return;
            }
        }
    };
    // Nothing new in that time is an answer too.
    drop(tokio::time::timeout(patience, moved).await);
    agent.read_stale().applied.unwrap_or(0)
}

/// A recipe's own user of its registry, with the password that its client has just given.
fn user(username: &str, password: &str) -> Option<Credentials> {
    let user = || Credentials { username: username.to_owned(), password: password.to_owned() };
    (!username.is_empty()).then(user)
}

/// For clients: not even what is sealed is theirs. Diego shows the password.
fn without_password(lrp: &Arc<DesiredLrp>) -> Arc<DesiredLrp> {
    if lrp.image_password.is_empty() {
        return Arc::clone(lrp);
    }
    Arc::new(DesiredLrp { image_password: String::new(), ..DesiredLrp::clone(lrp) })
}

/// As [`without_password`].
fn task_without_password(task: &Arc<Task>) -> Arc<Task> {
    if task.definition.image_password.is_empty() {
        return Arc::clone(task);
    }
    let mut shown = Task::clone(task);
    shown.definition.image_password.clear();
    Arc::new(shown)
}

fn api_error(error: RequestError) -> Error {
    match error {
        RequestError::Refused(refusal) => Error::Refused(refusal),
        RequestError::NotAgreed(error @ ProposeError::NotProposed { .. }) => {
            Error::Unavailable(error.to_string())
        }
        RequestError::NotAgreed(error @ ProposeError::Unknown { .. }) => {
            Error::Unknown(error.to_string())
        }
        RequestError::NotAgreed(error @ ProposeError::TooLarge { .. }) => {
            Error::Invalid(error.to_string())
        }
    }
}

fn api_waiting(wait: plan::report::Wait) -> Waiting {
    Waiting { reason: wait.why, remedy: wait.help }
}
