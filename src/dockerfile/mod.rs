//! The Dockerfile language: text to [`ast::Dockerfile`], word expansion, ignore rules, lints. Pure.

pub mod ast;
