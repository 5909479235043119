//! Disks that are new: who they may be, and that an emptied one is nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Cluster, PATIENCE, Runtime, config, domain, has_domain, node, wait};
use crate::membership::ChangeError;
use crate::memory::MemoryDisk;
use crate::newcomer::Newcomer;
use crate::peers::{Addressee, Ballot, Envelope, PeerRequest, PeerResponse};
use crate::replica::{Replica, StartError};
use crate::testing::{Line, Switchboard, enter};
use crate::wire::{DiskId, Node, NodeId, Vote};

/// Long enough for whoever may found a cluster to do so.
const A_WHILE: Duration = Duration::from_secs(20);

fn first(count: u64) -> BTreeMap<NodeId, Node> {
    (1..=count).map(|id| (id, node(id))).collect()
}

async fn newcomer(
    board: &Switchboard<Runtime>,
    id: NodeId,
    disk: &MemoryDisk,
) -> Newcomer<Runtime, MemoryDisk, Line<Runtime>> {
    let (disk, line) = (Arc::new(disk.clone()), Arc::new(board.line(id)));
    Newcomer::open(&config(id), first(3), disk, line).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_emptied_disk_is_told_so_and_takes_no_part() {
    for is_leader in [false, true] {
        let mut cluster = Cluster::new(3).await;
        let leader = cluster.leader().await;
        cluster.member(leader).propose(&domain("before")).await.unwrap();
        let victim = if is_leader { leader } else { cluster.others(leader)[0] };
        cluster.crash(victim).await;
        let refused = cluster.enter(victim, MemoryDisk::new()).await.unwrap().unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "node-{victim} is member {victim} of its cluster with another disk than the one \
                 that is here: that disk was emptied or exchanged, or two machines have this name. \
                 A member without its votes and its log must not take part; if the disk is lost \
                 for good, let the cluster replace the member: gavel cluster replace node-{victim}"
            )
        );
        cluster.board.unplug(victim);
        // The others go on, and have forgotten nothing.
        let leader = cluster.leader().await;
        cluster.member(leader).propose(&domain("after")).await.unwrap();
        assert!(has_domain(&cluster.converge().await, "before"));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_lost_its_disk_is_replaced_by_itself_as_a_new_member() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let victim = cluster.others(leader)[0];
    for _ in 0..2 {
        cluster.member(leader).propose(&domain("before")).await.unwrap();
        let status = cluster.member(leader).status();
        let name = format!("node-{victim}");
        let lost = status.members.iter().find(|member| member.node.name == name).unwrap().id;
        cluster.crash(lost).await;
        cluster.board.unplug(victim);
        cluster.member(leader).remove(BTreeSet::from([lost])).await.unwrap();

        let disk = MemoryDisk::new();
        let entering = cluster.enter(victim, disk.clone());
        let joined = async {
            loop {
                match cluster.member(leader).join(&node(victim).address).await {
                    Ok(id) => return id,
                    Err(ChangeError::NobodyThere { .. }) => {
                        tokio::time::sleep(Duration::from_millis(10)).await
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let id = tokio::time::timeout(PATIENCE, joined).await.unwrap();
        assert!(id > crate::limits::GIVEN_ID_MAX, "{id}");
        cluster.welcome(id, disk, entering).await;
        assert_eq!(cluster.member(id).id(), id);
        cluster.member(leader).promote(BTreeSet::from([id])).await.unwrap();
        wait(cluster.member(id), |standing| standing.leader == Some(leader)).await;
        assert!(has_domain(&cluster.converge().await, "before"));
        // Under its new number too, an emptied disk is known for what it is: by its name.
        let refused = cluster.enter(victim, MemoryDisk::new()).await.unwrap().unwrap_err();
        assert!(
            matches!(refused, StartError::Forgotten { member, .. } if member == id),
            "{refused}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_answers_for_another_disk() {
    let board = Switchboard::<Runtime>::default();
    let member = enter(&board, &config(1), &first(1), Arc::new(MemoryDisk::new())).await.unwrap();
    let vote = Vote { term: 99, node: 2, committed: false };
    let ballot = Ballot { vote, last_log_id: None, leadership_transfer: true };
    let request = PeerRequest::Vote(ballot);
    let me = Addressee { node: 1, disk: member.disk_id() };
    let others = [
        Some(Addressee { disk: DiskId(me.disk.0 ^ 1), ..me }),
        Some(Addressee { node: 2, ..me }),
        None,
    ];
    for to in others {
        let refused = member.open(Envelope { to, request: request.clone() }).unwrap_err();
        let here = format!("here is member 1 with disk {}", me.disk);
        assert_eq!(refused, PeerResponse::NotHere(here));
    }
    assert_eq!(
        member.open(Envelope { to: Some(me), request: request.clone() }),
        Ok(request.clone())
    );
    member.shutdown().await;

    let disk = MemoryDisk::new();
    let newcomer = newcomer(&board, 2, &disk).await;
    let to = Some(Addressee { node: 2, disk: DiskId(7) });
    let refused = newcomer.handle(&Envelope { to, request });
    assert!(matches!(refused, PeerResponse::NotHere(_)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_founded_when_all_first_members_are_there() {
    let mut cluster = Cluster::new(0).await;
    cluster.first = first(3);
    let disks = [1, 2, 3].map(|id| (id, MemoryDisk::new()));
    let [one, two, three] = disks.clone().map(|(id, disk)| (id, disk));
    let early = [one, two].map(|(id, disk)| (id, disk.clone(), cluster.enter(id, disk)));
    tokio::time::sleep(A_WHILE).await;
    for (id, _, entering) in &early {
        assert!(!entering.is_finished(), "node {id} is a member without node 3");
    }
    let (id, disk) = three;
    let late = (id, disk.clone(), cluster.enter(id, disk));
    for (id, disk, entering) in early.into_iter().chain([late]) {
        cluster.welcome(id, disk, entering).await;
    }
    cluster.leader().await;
    let members = cluster.member(1).status().members;
    for (id, _) in disks {
        let known = members.iter().find(|member| member.id == id).unwrap();
        assert_eq!(known.node.disk, cluster.member(id).disk_id(), "node {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_not_founded_beside_one_that_cannot_be_asked_for() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    cluster.member(leader).propose(&domain("before")).await.unwrap();
    // The founder's disk is emptied, and of the two others one is down: nobody leads.
    cluster.crash(1).await;
    let disk = cluster.crash(2).await;
    let entering = cluster.enter(1, MemoryDisk::new());
    tokio::time::sleep(A_WHILE).await;
    assert!(!entering.is_finished());
    // Both can be asked now, and say what it is.
    cluster.start(2, disk).await;
    let refused = tokio::time::timeout(PATIENCE, entering).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(refused, StartError::Forgotten { member: 1, .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_were_told_different_members_found_nothing() {
    let mut cluster = Cluster::new(0).await;
    cluster.first = first(3);
    let mut entering = vec![cluster.enter(1, MemoryDisk::new())];
    cluster.first = first(4);
    entering.extend([2, 3, 4].map(|id| cluster.enter(id, MemoryDisk::new())));
    tokio::time::sleep(A_WHILE).await;
    assert!(entering.iter().all(|entering| !entering.is_finished()));
}

#[tokio::test(start_paused = true)]
async fn a_founder_that_crashed_before_it_told_anybody_founds_again() {
    let board = Switchboard::<Runtime>::default();
    let disk = MemoryDisk::new();
    let (me, line) = (config(1), Arc::new(board.line(1)));
    let founder = Newcomer::<Runtime, _, _>::open(&me, first(1), Arc::new(disk.clone()), line);
    let entrance = founder.await.unwrap().introduce().await.unwrap();
    assert_eq!(entrance.id(), 1);
    let member = enter(&board, &config(1), &first(1), Arc::new(disk.crashed(0))).await.unwrap();
    wait(&member, |standing| standing.leads).await;
    member.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn each_node_has_a_directory_of_its_own() {
    let mut cluster = Cluster::new(2).await;
    cluster.leader().await;
    let disk = cluster.crash(1).await;
    let mixed_up = cluster.enter(2, disk.clone()).await.unwrap().unwrap_err();
    assert_eq!(
        mixed_up.to_string(),
        "the disk is that of node-1, and this node is node-2: give each its own directory"
    );
    let config = crate::Config { name: "node-1".to_owned(), ..config(7) };
    let line = Arc::new(cluster.board.line(7));
    let mixed_up =
        Replica::<Runtime, _, _>::start(&config, Arc::new(disk), line).await.unwrap_err();
    assert_eq!(mixed_up.to_string(), "the disk is that of member 1, and not of member 7");
}

#[tokio::test(start_paused = true)]
async fn only_a_new_disk_under_a_new_name_is_let_in() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let (member, other) = (cluster.member(leader).clone(), cluster.others(leader)[0]);
    let refused = async |address: &str| member.join(address).await.unwrap_err().to_string();
    let nobody = refused("memory:8").await;
    assert!(nobody.starts_with("nobody waits at memory:8: node 1000"), "{nobody}");
    let known = refused(&format!("memory:{other}")).await;
    assert!(known.contains(&format!("is, or was, member {other}; only one whose disk")), "{known}");

    // Two machines of one name.
    let twin = config(other);
    let line = Arc::new(cluster.board.line(8));
    let disk = Arc::new(MemoryDisk::new());
    let twin = Newcomer::open(&twin, first(3), disk, line).await.unwrap();
    cluster.board.plug_newcomer(8, &twin);
    let namesake = refused("memory:8").await;
    let expected = format!("node-{other} is the name of member {other}");
    assert_eq!(namesake, format!("the members cannot be changed so: {expected}"));

    let follower = cluster.member(other).join("memory:8").await.unwrap_err();
    assert_eq!(follower, ChangeError::NotLeader { leader: Some(leader) });

    // Asked for twice, it is let in once.
    cluster.let_in(leader, 4).await;
    let again = cluster.member(leader).add_learner(4, &node(4).address, false).await;
    assert_eq!(again, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_disk_of_an_older_format_is_refused_by_name() {
    use crate::disk::{Batch, Change, Disk, Meta};
    let disk = MemoryDisk::new();
    let bytes = crate::frame::seal(&[Meta::Vote as u8], 2, &[3, 2, 1]);
    disk.write(Batch::of(Change::PutMeta { meta: Meta::Vote, bytes })).unwrap();
    let board = Switchboard::<Runtime>::default();
    let refused = enter(&board, &config(1), &first(1), Arc::new(disk)).await.unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains("the vote is of version 2, this program reads version 3"),
        "{refused}"
    );
}
