//! What clients send, for the fuzzer: functions that panic where a promise breaks.

use model::{Command, DesiredLrp, Millis, Proposal, TaskDefinition, codec};
use prost::Message;

use crate::bbs::messages as bbs;
use crate::{bbs as diego, json};

/// Requests of Diego's clients, in protobuf. The first byte says which.
///
/// Promises: whatever decodes is refused or understood; what is understood can be agreed, as every
/// replica reads it again; what the model has is on the wire as it is in the model.
pub fn bbs(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 3 {
        0 => {
            let Ok(it) = bbs::DesiredLrp::decode(bytes) else { return };
            let Ok(lrp) = diego::desired_lrp_from(it, "trace") else { return };
            can_be_agreed(Command::DesireLrp { desired_lrp: Box::new(lrp.clone()) });
            let shown = diego::desired_lrp(&lrp);
            assert!(!shown.encode_to_vec().is_empty());
            let again = diego::desired_lrp_from(shown.clone(), "trace").expect("it was understood");
            // A password is shown to nobody, and the source of metrics under both of its names.
            let hidden = |lrp: DesiredLrp| DesiredLrp {
                image_password: String::new(),
                ports: Vec::new(),
                metrics_guid: String::new(),
                metric_tags: Default::default(),
                ..lrp
            };
            assert_eq!(hidden(again), hidden(lrp));
            let _ = diego::downgrade::desired_lrp(shown);
        }
        1 => {
            let Ok(it) = bbs::DesireTaskRequest::decode(bytes) else { return };
            let Ok((task_guid, domain, definition)) = diego::task_from(it, "trace") else { return };
            let definition = Box::new(definition);
            can_be_agreed(Command::DesireTask { task_guid, domain, definition });
        }
        _ => {
            let Ok(it) = bbs::UpdateDesiredLrpRequest::decode(bytes) else { return };
            let Ok((process_guid, update)) = diego::update_from(it, "trace") else { return };
            let update = Box::new(update);
            can_be_agreed(Command::UpdateDesiredLrp { process_guid, update });
        }
    }
}

/// Recipes as `cfdot` takes them, in JSON.
///
/// Promises: as of [`bbs`]; what is printed is read again.
pub fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(lrp) = json::parse_desired_lrp(text) {
        can_be_agreed(Command::DesireLrp { desired_lrp: Box::new(lrp.clone()) });
        let printed = json::desired_lrp(&lrp).to_string();
        let again = json::parse_desired_lrp(&printed).expect("it was printed by us");
        let plain = |lrp: DesiredLrp| DesiredLrp { created_at: Millis(0), ..lrp };
        assert_eq!(plain(again).process_guid, plain(lrp).process_guid);
    }
    if let Ok(json::NewTask { task_guid, domain, task_definition }) = json::parse_task(text) {
        let definition: Box<TaskDefinition> = Box::new(task_definition);
        can_be_agreed(Command::DesireTask { task_guid, domain, definition });
    }
    if let Ok(update) = json::parse_desired_lrp_update(text) {
        let (process_guid, update) = ("app".into(), Box::new(update));
        can_be_agreed(Command::UpdateDesiredLrp { process_guid, update });
    }
}

/// Every replica reads what one has written, or stops for good.
fn can_be_agreed(command: Command) {
    let proposal = Proposal { at: Millis(1), commands: vec![command] };
    let bytes = codec::encode_proposal(&proposal);
    assert_eq!(codec::decode_proposal(&bytes).as_ref(), Ok(&proposal));
}
