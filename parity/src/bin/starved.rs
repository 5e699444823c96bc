//! A primary that has no descriptor left, and then some again. Says how forking goes, each time.

use std::fs::File;

use allcores::Builder;
use rustix::process::{Resource, Rlimit, setrlimit};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let worker = std::env::args().nth(1).expect("a program for workers");
    let cluster = Builder::new().exec(worker).start().await.expect("it starts");
    cluster.fork().await.expect("the first worker");
    let limit = Rlimit { current: Some(64), maximum: Some(64) };
    setrlimit(Resource::Nofile, limit).expect("fewer are always allowed");
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    let refused = cluster.fork().await.expect_err("there is no descriptor left");
    println!("{:?}, {} left", refused.kind(), cluster.workers().len());
    drop(taken);
    cluster.fork().await.expect("there are some again");
    println!("{} then", cluster.workers().len());
    cluster.stop().await.expect("it stops");
}
