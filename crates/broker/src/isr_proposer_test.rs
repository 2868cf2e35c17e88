use std::collections::BTreeSet;

use klamm_replica::IsrMember;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::controller_client::fake::{Call, FakeController, PATIENCE, Script, client_of};

/// Hands the answers on.
struct Waiting(mpsc::UnboundedSender<(ProposalId, IsrAnswer)>);

impl Proposer for Waiting {
    fn answer(&self, id: ProposalId, answer: IsrAnswer) {
        let _ = self.0.send((id, answer));
    }
}

struct Running {
    proposer: Arc<IsrProposer>,
    answers: mpsc::UnboundedReceiver<(ProposalId, IsrAnswer)>,
    sender: mpsc::UnboundedSender<(ProposalId, IsrAnswer)>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(nodes: &[&FakeController]) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let proposer = Arc::new(IsrProposer::new());
        let task = tokio::spawn(Arc::clone(&proposer).run(client_of(nodes), async {
            let _ = stopped.await;
        }));
        Self { proposer, answers, sender, stop: Some(stop), task }
    }

    fn propose(&self, partition: i32, broker_epoch: i64) {
        let proposal = IsrProposal {
            id: ProposalId(partition as u64),
            broker_epoch: BrokerEpoch(broker_epoch),
            leader_epoch: LeaderEpoch(4),
            partition_epoch: PartitionEpoch(7),
            members: vec![
                IsrMember { broker: BrokerId(1), broker_epoch: BrokerEpoch(broker_epoch) },
                IsrMember { broker: BrokerId(2), broker_epoch: BrokerEpoch(12) },
            ],
        };
        self.proposer.push(Proposed {
            topic: TopicId([3; 16]),
            partition: PartitionId(partition),
            proposal,
            proposer: Box::new(Waiting(self.sender.clone())),
        });
    }

    async fn answer(&mut self) -> (u64, IsrAnswer) {
        let answer = tokio::time::timeout(PATIENCE, self.answers.recv()).await.unwrap();
        let (id, answer) = answer.unwrap();
        (id.0, answer)
    }
}

fn answer(partition: i32, code: pb::RefusalCode) -> pb::IsrAnswer {
    let state = pb::PartitionState {
        leader: 1,
        leader_epoch: 4,
        partition_epoch: 8,
        isr: vec![1, 2],
        recovery: LeaderRecovery::Recovered.into(),
        min_insync_replicas: 2,
    };
    let is_accepted = code == pb::RefusalCode::None;
    pb::IsrAnswer {
        topic_id: vec![3; 16].into(),
        partition_id: partition,
        refusal: (!is_accepted).then(|| pb::Refusal { code: code.into(), message: String::new() }),
        state: is_accepted.then_some(state),
    }
}

fn requests(script: &Script) -> Vec<pb::AlterPartitionRequest> {
    let requests = script.calls.iter().filter_map(|call| match call {
        Call::AlterPartition(request) => Some(request.clone()),
        _ => None,
    });
    requests.collect()
}

#[tokio::test]
async fn each_proposal_gets_its_own_answer_whatever_their_order() {
    let codes =
        [pb::RefusalCode::None, pb::RefusalCode::IneligibleReplica, pb::RefusalCode::FencedLeaderEpoch];
    let isr_answers = codes.iter().enumerate().rev().map(|(number, code)| answer(number as i32, *code));
    let script = Script { isr_answers: isr_answers.collect(), ..Script::default() };
    let controller = FakeController::start(script).await;
    let mut running = Running::start(&[&controller]);
    (0..4).for_each(|partition| running.propose(partition, 11));
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(running.answer().await);
    }
    answers.sort_by_key(|(id, _)| *id);
    let accepted = IsrAnswer::Accepted {
        leader_epoch: LeaderEpoch(4),
        partition_epoch: PartitionEpoch(8),
        in_sync_replicas: BTreeSet::from([BrokerId(1), BrokerId(2)]),
        min_in_sync_replicas: 2,
    };
    let expected = [
        (0, accepted),
        (1, IsrAnswer::Refused(IsrRefusal::IneligibleReplica)),
        (2, IsrAnswer::Refused(IsrRefusal::FencedLeaderEpoch)),
        // The controller said nothing of it.
        (3, IsrAnswer::Lost),
    ];
    assert_eq!(answers, expected);
    let sent = requests(&controller.script());
    let sent: Vec<_> = sent.iter().flat_map(|request| &request.proposals).collect();
    assert_eq!(sent.len(), 4);
    assert_eq!((sent[0].leader_epoch, sent[0].partition_epoch), (4, 7));
    assert_eq!(sent[0].isr[1], pb::IsrMember { broker_id: 2, broker_epoch: 12 });
    assert_eq!(sent[0].recovery(), LeaderRecovery::Recovered);
}

#[tokio::test]
async fn what_comes_while_a_request_is_on_its_way_goes_together_with_the_next() {
    let controller = FakeController::start(Script { mute: true, ..Script::default() }).await;
    let mut running = Running::start(&[&controller]);
    running.propose(0, 11);
    controller.wait_for(|script| !script.calls.is_empty()).await;
    (1..50).for_each(|partition| running.propose(partition, 11));
    running.propose(50, 12);
    controller.tell(|script| script.mute = false);
    // The first request was taken by a mute controller, and is lost at its timeout.
    for _ in 0..=50 {
        assert_eq!(running.answer().await.1, IsrAnswer::Lost);
    }
    let sent = requests(&controller.script());
    let sizes: Vec<_> = sent.iter().map(|request| (request.broker_epoch, request.proposals.len())).collect();
    assert_eq!(sizes, [(11, 1), (11, 49), (12, 1)]);
}

#[tokio::test]
async fn a_proposal_whose_answer_is_lost_is_told_so_and_not_sent_again() {
    let first = FakeController::start(Script { mute: true, ..Script::default() }).await;
    let second = FakeController::start(Script::default()).await;
    let mut running = Running::start(&[&first, &second]);
    running.propose(0, 11);
    first.wait_for(|script| !script.calls.is_empty()).await;
    first.kill().await;
    assert_eq!(running.answer().await, (0, IsrAnswer::Lost));
    assert!(second.script().calls.is_empty());
}

#[tokio::test]
async fn without_a_controller_proposals_are_refused_and_not_lost() {
    let passive = FakeController::start(Script { active: false, ..Script::default() }).await;
    let mut running = Running::start(&[&passive]);
    let answer = loop {
        running.propose(0, 11);
        match running.answer().await.1 {
            // The time ran out while the node was being asked: who knows.
            IsrAnswer::Lost => {}
            answer => break answer,
        }
    };
    assert_eq!(answer, IsrAnswer::Refused(IsrRefusal::NotController));
}

#[tokio::test]
async fn a_refusal_of_the_request_is_one_of_each_proposal() {
    let refusal = Some(pb::RefusalCode::StaleBrokerEpoch);
    let controller = FakeController::start(Script { refusal, ..Script::default() }).await;
    let mut running = Running::start(&[&controller]);
    running.propose(0, 11);
    assert_eq!(running.answer().await, (0, IsrAnswer::Refused(IsrRefusal::StaleBrokerEpoch)));
    // A refusal that says nothing of what became of the proposal must not be taken for one that does.
    controller.tell(|script| script.refusal = Some(pb::RefusalCode::UnknownServerError));
    running.propose(1, 11);
    assert_eq!(running.answer().await, (1, IsrAnswer::Lost));
}

#[tokio::test]
async fn a_shutdown_answers_what_is_on_its_way() {
    let mute = FakeController::start(Script { mute: true, ..Script::default() }).await;
    let mut running = Running::start(&[&mute]);
    running.propose(0, 11);
    mute.wait_for(|script| !script.calls.is_empty()).await;
    running.stop.take().unwrap().send(()).unwrap();
    assert_eq!(running.answer().await, (0, IsrAnswer::Lost));
    running.task.await.unwrap();
}
