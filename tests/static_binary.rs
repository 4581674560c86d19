//! The binary starts in an empty root filesystem: nothing of it is loaded at run time.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

/// Program header types of the ELF specification.
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
/// The tag of a dynamic entry that names a shared library.
const DT_NEEDED: u64 = 1;

/// A program header: type, offset in the file, size in the file.
fn program_headers(elf: &[u8]) -> Vec<(u32, usize, usize)> {
    let u16_at = |at: usize| u16::from_le_bytes(elf[at..at + 2].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap()) as usize;
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "a 64-bit little-endian ELF file");
    let (table, size, count) = (u64_at(0x20), usize::from(u16_at(0x36)), usize::from(u16_at(0x38)));
    (0..count)
        .map(|i| table + i * size)
        .map(|at| (u32::from_le_bytes(elf[at..at + 4].try_into().unwrap()), u64_at(at + 8), u64_at(at + 32)))
        .collect()
}

#[test]
fn the_binary_is_static() {
    let elf = fs::read(env!("CARGO_BIN_EXE_kiln")).unwrap();
    let headers = program_headers(&elf);
    assert!(!headers.is_empty());
    assert!(headers.iter().all(|(kind, ..)| *kind != PT_INTERP), "it asks for a dynamic loader");
    for (_, offset, size) in headers.iter().filter(|(kind, ..)| *kind == PT_DYNAMIC) {
        for entry in elf[*offset..offset + size].chunks_exact(16) {
            let tag = u64::from_le_bytes(entry[..8].try_into().unwrap());
            assert_ne!(tag, DT_NEEDED, "it needs a shared library");
        }
    }
}
