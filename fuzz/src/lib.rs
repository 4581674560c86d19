//! The parts of kiln that read what others wrote, for the fuzz targets.

#[path = "../../src/dockerfile/mod.rs"]
pub mod dockerfile;
#[path = "../../src/report/mod.rs"]
pub mod report;
