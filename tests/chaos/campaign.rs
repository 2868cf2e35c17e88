//! One campaign: fault after fault under all producers, and the reckoning at the end.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, sleep_until};

use super::PARTITIONS;
use super::producers::{Producers, Tools};
use super::reckoning::{Reckoning, reckon};
use super::report::{Fault, Report, Span};
use super::rig::{Prepared, Rig};
use super::schedule::{Chance, Counts, Kind};
use super::server::Server;

/// Controllers act on evidence of death against a minority of the brokers in any second, here against one: of two that die
/// within that time the second would be found out a second later.
const BRAKE: Duration = Duration::from_millis(1_100);
/// The fault comes within so long after everything is well.
const MOMENT_MAX: Duration = Duration::from_secs(1);
/// The victim comes back within so long after the others have taken over.
const RETURN_MAX: Duration = Duration::from_millis(500);
/// So long a calm time is looked at.
const CALM: Duration = Duration::from_secs(2);
/// How many records of each producer each partition acknowledges before and after each fault, and after each return.
const STEP: usize = 20;

/// What a campaign shall be.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) counts: Counts,
    /// Where the lines go, one for each fault.
    pub(crate) lines: PathBuf,
}

/// Milliseconds since 1970, the clock by which the clients tell their times.
#[expect(
    clippy::disallowed_methods,
    reason = "the moments of faults are compared with times that clients tell"
)]
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64() * 1_000.0
}

struct Campaign {
    rig: Rig,
    producers: Producers,
    chance: Chance,
    report: Report,
    last_strike: Instant,
}

/// Runs the plan, and fails if anything that was acknowledged is not where it was told, once and in order, or if a byte of
/// a replica differs.
/// Gives the servers back, whose nodes have ended if they are processes of ours.
pub(crate) async fn run(server: Server, tools: &Tools, plan: Plan) -> (Server, Reckoning) {
    eprintln!("seed {}: {:?}", plan.seed, plan.counts);
    let rig = Rig::new(server).await;
    let producers = Producers::start(tools, &rig.server).await;
    let report = Report::create(plan.seed, plan.lines);
    let mut chance = Chance::new(plan.seed);
    let faults = chance.order(&plan.counts);
    let mut campaign = Campaign { rig, producers, chance, report, last_strike: Instant::now() };
    for (number, kind) in faults.into_iter().enumerate() {
        campaign.fault(number, kind).await;
    }
    let Campaign { rig, producers, report, .. } = campaign;
    let mut server = rig.server;
    let reckoning = reckon(&mut server, producers).await;
    println!("{report}");
    println!("{reckoning}; the faults are in {}", report.path.display());
    (server, reckoning)
}

impl Campaign {
    async fn fault(&mut self, number: usize, kind: Kind) {
        let all: Vec<usize> = (0..PARTITIONS).collect();
        let arranging = now();
        let Prepared { victim, was_active, led, followed } = self.rig.prepare(kind, &mut self.chance).await;
        self.producers.acknowledge(STEP).await;
        let arranged = now();
        sleep_until(self.last_strike + BRAKE).await;
        sleep(self.chance.below(MOMENT_MAX)).await;

        let at = now();
        self.last_strike = Instant::now();
        self.rig.strike(kind, victim).await;
        if kind == Kind::Calm {
            sleep(CALM).await;
        } else {
            self.rig.wait_replaced(victim, kind != Kind::Term).await;
        }
        let replaced = now() - at;
        // What a held leader was asked may have no answer before it goes on.
        if kind != Kind::Pause {
            self.producers.acknowledge(STEP).await;
        }
        sleep(self.chance.below(RETURN_MAX)).await;

        let mut until = now();
        let returned = until;
        self.rig.restore(kind, victim);
        if kind == Kind::Pause {
            self.producers.acknowledge(STEP).await;
            until = now();
        }
        self.rig.server.wait_ready().await;
        self.rig.arrange(&self.rig.unsettled()).await;
        let healed = now() - returned;
        self.producers.acknowledge(STEP).await;

        let spans = [(Span::Led, led, at, until), (Span::Followed, followed, at, until)];
        let mut gaps: Vec<_> = spans
            .into_iter()
            .filter(|(_, partitions, ..)| !partitions.is_empty())
            .map(|(span, partitions, from, until)| (span, self.producers.gaps(&partitions, from, until)))
            .collect();
        if !matches!(kind, Kind::Calm | Kind::Pause) {
            gaps.push((Span::Return, self.producers.gaps(&all, returned, returned + healed)));
        }
        gaps.push((Span::Move, self.producers.gaps(&all, arranging, arranged)));
        self.report.add(&Fault { number, kind, victim, was_active, at, replaced, healed, gaps });
    }
}
