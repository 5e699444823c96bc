//! The program `allcores`.

fn main() {}
