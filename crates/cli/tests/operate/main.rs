//! Operating apps: config files, and all that is done with apps that run.
//!
//! Every test runs the program `allcores` with real workers, in folders of its own.

mod activation;
mod background;
mod config;
mod containers;
mod folder;
mod folders;
mod given;
mod import;
mod journal;
mod logs;
mod metrics;
mod screens;
mod state;
mod store;
mod systemd;
