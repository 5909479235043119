//! The cluster's birth, domains and feature flags.

use std::sync::Arc;

use super::Change;
use crate::domain::Domain;
use crate::event::Event;
use crate::feature_flag::FeatureFlag;
use crate::id::DomainName;
use crate::mutant;
use crate::refusal::Refusal;
use crate::state::Cluster;
use crate::time::Millis;
use crate::validate;

impl Change<'_> {
    pub(super) fn init_cluster(&mut self, salt: u32) -> Result<(), Refusal> {
        if self.state.is_initialised() {
            return Err(Refusal::ClusterInitialised);
        }
        if salt == 0 {
            return Err(Refusal::InvalidRequest("Invalid field: salt".to_owned()));
        }
        self.state.set_cluster(Cluster { salt, ..self.state.cluster() });
        self.events.push(Event::ClusterInitialised);
        Ok(())
    }

    pub(super) fn upsert_domain(
        &mut self,
        name: DomainName,
        ttl: Option<Millis>,
    ) -> Result<(), Refusal> {
        validate::domain(&name)?;
        let expires_at = ttl.map(|ttl| self.stamp.at + ttl);
        self.state.put_domain(Arc::new(Domain { name: name.clone(), expires_at }));
        self.events.push(Event::DomainChanged(name));
        Ok(())
    }

    pub(super) fn expire_domain(&mut self, name: &DomainName) -> Result<(), Refusal> {
        let Some(domain) = self.state.domain(name) else { return Ok(()) };
        match domain.expires_at {
            Some(at) if at <= self.stamp.at || mutant!("domain-expires-early") => {}
            Some(_) | None => return Err(Refusal::NotDue),
        }
        self.state.remove_domain(name);
        self.events.push(Event::DomainChanged(name.clone()));
        Ok(())
    }

    /// What is not allowed any more ends, but for tasks that run; what is allowed again comes back
    /// (docker.md section 10).
    pub(super) fn set_feature_flag(&mut self, flag: FeatureFlag, enabled: bool) {
        if self.state.is_enabled(flag) == enabled {
            return;
        }
        let parked: Vec<_> = self.state.not_allowed().collect();
        self.state.put_feature_flag(flag, enabled);
        self.events.push(Event::FeatureFlagChanged { flag, enabled });
        let unwanted: Vec<_> = self.state.not_allowed().collect();
        for lrp in unwanted {
            if !mutant!("flag-keeps-apps") {
                self.remove_rows_from(&lrp.process_guid, 0);
            }
        }
        for lrp in parked {
            for index in self.state.wanted(&lrp) {
                self.insert_unclaimed(&lrp, index);
            }
        }
    }
}
