//! `exchange`: small signed queries a second between two nodes, against plain Flight.
//!
//! ```text
//! this process: the asker's node ═══ mTLS ═══ jingwei serve       request … acknowledgement
//! this process: a Flight client  ═══ mTLS ═══ bench plain-serve   query, rows
//! ```
//!
//! Both sides of both ways share the machine's processors. A question is answered when its rows
//! have ended, which they do once the acknowledgement is durable in the asker's journal; then the
//! next is asked. That the provider has it in its own journal, of which the asker hears later, is
//! seen for every exchange, and no round is over before. `sql` goes through the asker's whole
//! engine besides, from SQL text on, and is compared with the same plain answers.

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{FutureExt as _, TryStreamExt as _};
use jingwei::agency::HostedAgency;
use jingwei::catalogue::Tables;
use jingwei::config::Config;
use jingwei::exchange::ask::Question;
use jingwei::home::Home;
use jingwei::node::Node;
use jingwei::query::limits::Limits;
use jingwei::query::seats::Seat;
use jingwei::query::session::Session;
use jingwei_proto::border::Query;
use jingwei_registry::clock;
use jingwei_registry::connect::Link;
use jingwei_registry::disk::Disk;
use jingwei_tests::local::runtime;
use tokio::net::TcpListener;

use crate::Failure;
use crate::figure::{Figure, median};
use crate::load::{self, Answered, Ask, Round, percentile};
use crate::plain;
use crate::world::{ANSWER, ASKER, World, question};

/// How long to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds of each way, which take turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Questions under way at once
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64])]
    concurrency: Vec<usize>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let world = World::found()?;
    log_into(&world)?;
    let asker = Asker::start(&world)?;
    let (plain_process, address) = world.serve_plain()?;
    let link = {
        let _runtime = runtime().enter();
        plain::link(address, &world.provider.dir, &world.asker.dir)?
    };
    let own = std::process::id();
    let provider = [own, world.provider_process.id()];
    let ways = [
        ("exchange", asker.exchanges(), provider),
        ("sql", asker.questions(), provider),
        ("plain", plain_answers(link), [own, plain_process.id()]),
    ];
    for concurrency in &arguments.concurrency {
        let mut rounds = [vec![], vec![], vec![]];
        // The first round warms up: connections, caches, the processor's clock.
        for round in 0..=arguments.rounds {
            for ((_, ask, processes), rounds) in ways.iter().zip(&mut rounds) {
                let time = Duration::from_secs_f64(arguments.seconds);
                let done = load::run(ask, *concurrency, time, ANSWER, processes);
                let done = runtime().block_on(done)?;
                if round > 0 {
                    rounds.push(done);
                }
            }
        }
        let [exchanges, questions, plain] = rounds.map(summary);
        report("exchange", *concurrency, &exchanges, &plain);
        report("sql", *concurrency, &questions, &plain);
    }
    asker.stop()
}

/// The asker's node logs what a node logs by default, and like other nodes into a file.
fn log_into(world: &World) -> Result<(), Failure> {
    let file = File::create(world.log("this"))?;
    tracing_subscriber::fmt()
        .with_env_filter("info")
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .try_init()
}

/// The asker's node, in this process.
struct Asker {
    node: Arc<Node>,
    agency: Arc<HostedAgency>,
    served: tokio::task::JoinHandle<Result<(), jingwei_registry::fault::Fault>>,
}

impl Asker {
    fn start(world: &World) -> Result<Asker, Failure> {
        let _runtime = runtime().enter();
        let listen = world.asker.listen;
        let config = Config {
            listen,
            ..Config::default()
        };
        let home = Home::new(&world.asker.dir);
        let node = Node::open(home, config, clock::system(), Disk::new())?;
        let listener = runtime().block_on(TcpListener::bind(listen))?;
        let served = tokio::spawn(node.clone().serve(listener));
        world.asker.until("at the socket", |_| true);
        world.asker.until_announced();
        world.federation.settle(&[&world.asker, &world.provider]);
        Ok(Asker {
            agency: node.hosted_agency(ASKER)?,
            node,
            served,
        })
    }

    fn stop(self) -> Result<(), Failure> {
        self.node.stop();
        Ok(runtime().block_on(self.served)??)
    }

    fn question(&self) -> impl Fn() -> Arc<Question> + Send + Sync + 'static {
        let (node, agency) = (self.node.clone(), self.agency.clone());
        move || {
            let purpose = Some("a benchmark".to_owned());
            Question::new(&node, &agency, purpose, None, false, Limits::default())
        }
    }

    /// Border queries, asked directly.
    fn exchanges(&self) -> Ask {
        let (new, schema) = (self.question(), schema());
        Arc::new(move |number| {
            let (asking, schema) = (new(), schema.clone());
            async move {
                let query = Query::parse(&question(number))?;
                let batches: Vec<_> = asking.ask(query, schema).try_collect().await?;
                Ok(answered(asking, &batches))
            }
            .boxed()
        })
    }

    /// The same questions in SQL, through the whole engine.
    fn questions(&self) -> Ask {
        let new = self.question();
        Arc::new(move |number| {
            let asking = new();
            async move {
                let tables = Arc::new(Tables(asking.clone()));
                let session = Session::new(tables, Limits::default());
                let (_, rows) = session.run(&question(number), Seat::alone()).await?;
                let batches: Vec<_> = rows.try_collect().await?;
                Ok(answered(asking, &batches))
            }
            .boxed()
        })
    }
}

/// The rows, which must have come by one exchange that is complete and confirmed by the provider.
fn answered(question: Arc<Question>, batches: &[RecordBatch]) -> Answered {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let rest = async move {
        match question.take_exchanged().await?.as_slice() {
            [exchanged] if exchanged.confirmed && exchanged.answer.rows == rows as u64 => Ok(()),
            [exchanged] if !exchanged.confirmed => Err("an exchange was not confirmed".into()),
            other => Err(format!("{} exchanges were completed", other.len()).into()),
        }
    };
    Answered {
        rows,
        rest: Some(rest.boxed()),
    }
}

fn plain_answers(link: Link) -> Ask {
    Arc::new(move |number| {
        let asking = plain::ask(link.clone(), question(number));
        async move {
            let rows = asking.await?;
            Ok(Answered { rows, rest: None })
        }
        .boxed()
    })
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("code", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("people", DataType::Int64, true),
    ]))
}

/// Medians of the rounds; percentiles of all their answers together.
struct Summary {
    rate: f64,
    p50: f64,
    p99: f64,
    processor: f64,
}

fn summary(rounds: Vec<Round>) -> Summary {
    let rate = median(rounds.iter().map(|round| round.rate).collect());
    let processor = median(rounds.iter().map(|round| round.processor).collect());
    let mut latencies: Vec<f64> = rounds
        .into_iter()
        .flat_map(|round| round.latencies)
        .collect();
    Summary {
        rate,
        p50: percentile(&mut latencies, 0.5),
        p99: percentile(&mut latencies, 0.99),
        processor,
    }
}

fn report(way: &str, concurrency: usize, ours: &Summary, plain: &Summary) {
    let figures = [
        ("per second", "1/s", ours.rate, plain.rate),
        ("p50", "ms", ours.p50, plain.p50),
        ("p99", "ms", ours.p99, plain.p99),
        ("processor time each", "ms", ours.processor, plain.processor),
    ];
    for (what, unit, value, against) in figures {
        Figure {
            bench: "exchange",
            figure: &format!("{way}, {concurrency} at once, {what}"),
            value,
            unit,
            against,
            baseline: "the same query over plain Flight with the same mTLS and planning",
        }
        .print();
    }
}
