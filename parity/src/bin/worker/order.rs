//! What a worker can be told.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::Value;

/// What it does at once, and what when it is time to go.
#[derive(Deserialize)]
#[serde(from = "Written")]
pub(crate) struct Script {
    pub(crate) orders: VecDeque<Order>,
    pub(crate) at_end: VecDeque<Order>,
}

/// A script as it is written: a list of orders, or two.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(VecDeque<Order>),
    Two { now: VecDeque<Order>, at_end: VecDeque<Order> },
}

impl From<Written> for Script {
    fn from(written: Written) -> Self {
        match written {
            Written::One(orders) => Self { orders, at_end: VecDeque::new() },
            Written::Two { now, at_end } => Self { orders: now, at_end },
        }
    }
}

/// One thing to do.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Listen there; says `{"listening": PORT}` or `{"error": …}`.
    Listen(Listen),
    /// The same of a Unix socket.
    ListenUnix(String),
    /// Bind a UDP socket, and answer each datagram with this worker's number.
    BindUdp {
        at: String,
        #[serde(default)]
        only_v6: bool,
    },
    /// Close what listens at this port.
    Close(u16),
    /// Serve what came along.
    Serve,
    /// Connect, and send the connection to the primary.
    Connect {
        to: String,
        /// Keep it as well, and write this.
        #[serde(default)]
        and_write: Option<String>,
    },
    /// Send a listener to the primary, with its port.
    SendListener,
    /// Send a UDP socket to the primary, with its port.
    SendUdp,
    /// Say that this worker is ready.
    Ready,
    /// Say this.
    Say(Value),
    /// Say all numbers below this one.
    SayNumbers(u32),
    /// Say so many bytes, wait until they are written, and say what `send` returned before and after.
    SayLong(usize),
    /// Print a line.
    Print(String),
    /// Print a line to standard error.
    Complain(String),
    /// Say who you are.
    Tell,
    /// Say what this variable of the environment is.
    Variable(String),
    /// Say what the arguments behind the script are.
    Arguments,
    /// Say in which folder you are.
    Folder,
    /// Read a line from the descriptor of this number, write it back, and say it.
    Pipe(i32),
    /// Serve the listener that was inherited by this number.
    Inherited(i32),
    /// Start this program again, and say what it takes itself for.
    Grandchild,
    /// Start a cluster of this program without having asked what it is, and say why that failed.
    Nest,
    /// Send all messages back from now on.
    Echo,
    /// Leave the primary.
    Disconnect,
    /// The same, without waiting.
    Kill,
    /// Wait until it is time to go.
    UntilShutdown,
    /// End the process.
    Exit(i32),
    /// Be busy for ever.
    Spin,
    /// Go, as if the primary had said so.
    End,
}

/// How to listen, and what to do with connections.
#[derive(Deserialize)]
pub(crate) struct Listen {
    pub(crate) at: String,
    #[serde(default)]
    pub(crate) policy: Option<String>,
    #[serde(default)]
    pub(crate) backlog: Option<u32>,
    #[serde(default)]
    pub(crate) only_v6: bool,
    /// What to do with connections.
    #[serde(default, rename = "do")]
    pub(crate) service: Service,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Service {
    /// Is told the worker's number, and closed.
    #[default]
    Number,
    /// Is read to its end, gets all of it back, and is closed.
    Echo,
    /// Is told the worker's number, and the next is accepted when it has closed.
    OneByOne,
    /// Waits: nothing is ever accepted.
    Nothing,
}
