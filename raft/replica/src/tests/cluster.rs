//! Several members: elections, proposals, reads, partitions, changes of members.

use std::collections::BTreeSet;
use std::time::Duration;

use model::codec;

use super::{Cluster, domain, has_domain, node, wait};
use crate::events::Events;
use crate::limits;
use crate::membership::ChangeError;
use crate::memory::MemoryDisk;
use crate::peers::PeerError;
use crate::replica::ProposeError;
use crate::status::Role;
use crate::wire::Node;

#[tokio::test(start_paused = true)]
async fn one_member_alone_leads_and_applies() {
    let cluster = Cluster::new(1).await;
    let member = cluster.member(1);
    let outcome = member.propose(&domain("a")).await.unwrap();
    assert_eq!(outcome.0, [Ok(true)]);
    assert!(has_domain(&member.read_linearizable().await.unwrap().state, "a"));
    assert!(has_domain(&cluster.converge().await, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_follower_forwards_and_reads_its_own_write() {
    let cluster = Cluster::new(3).await;
    // No waiting for a leader: the proposal itself waits for the election.
    cluster.member(1).propose(&domain("early")).await.unwrap();
    let leader = cluster.leader().await;
    for follower in cluster.others(leader) {
        let name = format!("by-{follower}");
        cluster.member(follower).propose(&domain(&name)).await.unwrap();
        let reading = cluster.member(follower).read_linearizable().await.unwrap();
        assert!(has_domain(&reading.state, &name));
        assert!(has_domain(&reading.state, "early"));
    }
    cluster.converge().await;
    assert!(cluster.board.calls("propose") > 0);
    assert!(cluster.board.calls("read_index") > 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    for number in 0..50 {
        cluster.member(leader).propose(&domain(&format!("before-{number}"))).await.unwrap();
    }
    let disk = cluster.crash(leader).await;
    let survivor = cluster.leader().await;
    assert_ne!(survivor, leader);
    cluster.member(survivor).propose(&domain("after")).await.unwrap();

    cluster.start(leader, disk).await;
    let state = cluster.converge().await;
    assert!(has_domain(&state, "after"));
    for number in 0..50 {
        assert!(has_domain(&state, &format!("before-{number}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_away_long_catches_up_by_snapshot() {
    let mut cluster = Cluster::configured(3, |config| {
        config.snapshot_entries = 50;
        config.snapshot_entries_kept = 10;
        config.snapshot_lag_entries = 100;
        config.purge_entries_min = 1;
    })
    .await;
    let leader = cluster.leader().await;
    let away = cluster.others(leader)[0];
    let disk = cluster.crash(away).await;
    for number in 0..300 {
        cluster.member(leader).propose(&domain(&format!("domain-{number}"))).await.unwrap();
    }
    let purged = cluster.member(leader).status().purged;
    assert!(purged > Some(200), "what the member misses is no longer in the log: {purged:?}");

    cluster.start(away, disk).await;
    let before = cluster.member(away).read_stale().applied;
    let state = cluster.converge().await;
    assert!(cluster.board.calls("snapshot_chunk") > 0);
    for number in 0..300 {
        assert!(has_domain(&state, &format!("domain-{number}")));
    }
    // What happened under the snapshot is not known event by event.
    assert_eq!(cluster.member(away).events_after(before, 10), Events::Missed);
    let status = cluster.member(away).status();
    assert!(status.members.iter().all(|member| member.voter), "{status:?}");
    assert_eq!(status.members.len(), 3);

    // And it is a member like any other afterwards: it can be the quorum's second half.
    let third = cluster.others(away).into_iter().find(|id| *id != leader).unwrap();
    cluster.crash(third).await;
    cluster.member(away).propose(&domain("after")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pre_vote_keeps_a_member_that_was_cut_off_from_deposing_the_leader() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    cluster.member(leader).propose(&domain("before")).await.unwrap();
    let term = cluster.member(leader).status().term;
    let lonely = cluster.others(leader)[0];
    cluster.board.isolate(lonely, cluster.others(lonely));
    // It loses patience twice over, and would raise its term each time.
    cluster.board.tried(lonely, "pre_vote", 4).await;
    cluster.member(leader).propose(&domain("meanwhile")).await.unwrap();
    cluster.board.mend();
    let index = cluster.member(leader).read_linearizable().await.unwrap().applied;
    wait(cluster.member(lonely), |standing| {
        standing.leader == Some(leader) && standing.applied >= index
    })
    .await;
    for id in [1, 2, 3] {
        assert_eq!(cluster.member(id).status().term, term, "node {id}");
    }
    assert_eq!(cluster.leader().await, leader);
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_a_quorum_acknowledges_nothing() {
    let cluster = Cluster::new(3).await;
    let old = cluster.leader().await;
    cluster.board.isolate(old, cluster.others(old));
    let lost = domain("lost");
    let lost = cluster.member(old).propose(&lost);
    let kept = async {
        let new = cluster.leader_but(&[old]).await;
        cluster.member(new).propose(&domain("kept")).await.unwrap();
        new
    };
    let (lost, new) = futures_util::future::join(lost, kept).await;
    assert!(matches!(lost, Err(ProposeError::Unknown { .. })), "{lost:?}");
    cluster.board.mend();
    let state = cluster.converge().await;
    assert!(has_domain(&state, "kept"));
    assert!(!has_domain(&state, "lost"), "its entry was overwritten");
    assert_eq!(cluster.leader().await, new);
}

#[tokio::test(start_paused = true)]
async fn a_proposal_that_nobody_can_take_is_known_to_be_without_effect() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let others = cluster.others(leader);
    cluster.crash(leader).await;
    cluster.crash(others[0]).await;
    let alone = cluster.member(others[1]);
    let refused = alone.propose(&domain("nowhere")).await;
    assert!(matches!(refused, Err(ProposeError::NotProposed { .. })), "{refused:?}");
    assert!(alone.read_linearizable().await.is_err());
    assert!(!has_domain(&alone.read_stale().state, "nowhere"));
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let next = cluster.others(leader)[1];
    assert_eq!(
        cluster.member(next).transfer_leadership(next).await,
        Err(ChangeError::NotLeader { leader: Some(leader) })
    );
    assert!(matches!(
        cluster.member(leader).transfer_leadership(9).await,
        Err(ChangeError::Refused(_))
    ));
    cluster.member(leader).propose(&domain("before")).await.unwrap();
    cluster.member(leader).transfer_leadership(next).await.unwrap();
    wait(cluster.member(next), |standing| standing.leads).await;
    assert!(cluster.board.calls("transfer_leader") > 0);
    cluster.member(leader).propose(&domain("after")).await.unwrap();
    assert!(has_domain(&cluster.converge().await, "before"));
}

#[tokio::test(start_paused = true)]
async fn leadership_handed_to_a_dead_member_comes_back() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let dead = cluster.others(leader)[0];
    cluster.crash(dead).await;
    // Whoever of the two living takes over, proposals go on.
    let _given_up = cluster.member(leader).transfer_leadership(dead).await;
    cluster.leader().await;
    cluster.member(leader).propose(&domain("after")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn members_come_vote_and_leave() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    cluster.member(leader).propose(&domain("before")).await.unwrap();
    cluster.let_in(leader, 4).await;
    assert_eq!(cluster.member(4).status().role, Role::Learner);
    wait(cluster.member(4), |standing| standing.leader == Some(leader)).await;
    assert!(has_domain(&cluster.member(4).read_linearizable().await.unwrap().state, "before"));

    cluster.member(leader).promote(BTreeSet::from([4])).await.unwrap();
    let status = cluster.member(leader).status();
    assert!(status.members.iter().all(|member| member.voter), "{status:?}");
    assert!(!status.joint);

    let gone = cluster.others(leader)[0];
    cluster.member(leader).remove(BTreeSet::from([gone])).await.unwrap();
    let status = cluster.member(leader).status();
    assert!(status.members.iter().all(|member| member.id != gone), "{status:?}");
    cluster.crash(gone).await;
    cluster.member(4).propose(&domain("after")).await.unwrap();
    let state = cluster.converge().await;
    assert!(has_domain(&state, "after"));
    let matched = cluster.member(leader).status().members;
    assert!(matched.iter().all(|member| member.matched.is_some()), "{matched:?}");
    assert!(matches!(
        cluster.member(4).promote(BTreeSet::from([4])).await,
        Err(ChangeError::NotLeader { leader: Some(_) })
    ));
    assert!(matches!(
        cluster.member(leader).promote(BTreeSet::from([77])).await,
        Err(ChangeError::Refused(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_made_once() {
    let cluster = Cluster::new(1).await;
    let member = cluster.member(1);
    member.propose(&domain("a")).await.unwrap();
    let me = Node { disk: member.disk_id(), ..node(1) };
    member.initialize([(1, me)].into()).await.unwrap();
    assert!(has_domain(&member.read_linearizable().await.unwrap().state, "a"));
    assert_eq!(
        member.initialize([(2, node(2))].into()).await,
        Ok(()),
        "whoever is asked, it has a cluster"
    );
}

#[tokio::test(start_paused = true)]
async fn a_proposal_too_large_is_not_proposed() {
    let cluster = Cluster::new(1).await;
    let huge = domain(&"x".repeat(limits::PROPOSAL_BYTES_MAX));
    let refused = cluster.member(1).propose(&huge).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn watchers_see_each_event_once_in_order() {
    let cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.member(cluster.others(leader)[0]);
    let start = follower.read_linearizable().await.unwrap().applied;
    for name in ["a", "b", "c"] {
        follower.propose(&domain(name)).await.unwrap();
    }
    follower.read_linearizable().await.unwrap();
    let Events::All { events, through } = follower.events_after(start, 2) else {
        panic!("nothing was missed")
    };
    assert_eq!(events.len(), 2);
    let Events::All { events: rest, .. } = follower.events_after(through, 100) else {
        panic!("nothing was missed")
    };
    let happened: Vec<model::Event> =
        events.into_iter().chain(rest).map(|(_, event)| event).collect();
    let changed = |name: &str| model::Event::DomainChanged(name.into());
    assert_eq!(happened, [changed("a"), changed("b"), changed("c")]);
}

#[tokio::test(start_paused = true)]
async fn soft_messages_go_past_the_replica() {
    let cluster = Cluster::new(2).await;
    cluster.leader().await;
    let answer = cluster.member(1).call_soft(2, b"hello".to_vec(), Duration::from_secs(5)).await;
    assert_eq!(answer.unwrap(), b"hello");
    let nobody = cluster.member(1).call_soft(9, Vec::new(), Duration::from_secs(5)).await;
    assert!(matches!(nobody, Err(PeerError::Unreachable { target: 9, .. })), "{nobody:?}");
}

#[tokio::test(start_paused = true)]
async fn many_proposals_at_once_all_count_once() {
    let cluster = Cluster::new(3).await;
    cluster.leader().await;
    let proposals = (0..600).map(|number| {
        let member = cluster.member(number % 3 + 1).clone();
        async move { member.propose(&domain(&format!("domain-{number}"))).await.unwrap() }
    });
    let outcomes = futures_util::future::join_all(proposals).await;
    assert!(outcomes.iter().all(|outcome| outcome.0 == [Ok(true)]));
    let state = cluster.converge().await;
    assert_eq!(state.domains().count(), 600);
    assert_ne!(codec::digest(&state), codec::digest(&model::State::default()));
    let syncs: u64 = cluster.disks.values().map(MemoryDisk::syncs).sum();
    assert!(syncs < 1800, "appends share syncs: {syncs}");
}
