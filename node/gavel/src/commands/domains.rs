//! Domains: whose clients have said everything they want.

use std::time::Duration;

use clap::Args;
use model::DomainName;

use super::Freshness;
use crate::cli::Caller;
use crate::failure::Failure;
use crate::output::Table;
use crate::units::{self, parse_duration};

/// Lists the fresh domains
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel domains")]
pub(crate) struct List {
    #[command(flatten)]
    freshness: Freshness,
}

/// Marks a domain fresh: everything that its client wants has been said
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gavel set-domain cf-apps -t 2m")]
pub(crate) struct Set {
    #[arg(value_name = "NAME")]
    domain: String,
    /// For how long; without it, for ever
    #[arg(short = 't', long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
}

impl List {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let consistency = self.freshness.consistency();
        let domains = caller
            .client
            .read(async |admin, context| admin.domains(context, consistency).await)
            .await?;
        caller.screen.list(
            &domains,
            |domain| api::json::domain(domain),
            |domains| {
                let mut table = Table::new(["domain", "expires"]);
                for domain in domains {
                    let expires = match domain.expires_at {
                        None => "never".to_owned(),
                        Some(at) => {
                            let left = Duration::from_millis((at - units::now()).0);
                            format!("in {}", units::duration(left))
                        }
                    };
                    table.row([domain.name.as_str().into(), expires.into()]);
                }
                table
            },
            "no domain is fresh",
        )
    }
}

impl Set {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        // The wire has whole seconds, and nothing is for ever: a short wait must not become that.
        let seconds = self.ttl.map_or(0, |ttl| ttl.as_millis().div_ceil(1000));
        if self.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(Failure::Usage("a TTL is at least a second".to_owned()));
        }
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        let domain = DomainName::from(self.domain);
        caller
            .client
            .change("gavel domains", async |admin, context| {
                admin.upsert_domain(context, domain.clone(), seconds).await
            })
            .await?;
        caller.screen.done(format_args!("{domain} is fresh"))
    }
}
