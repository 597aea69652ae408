//! What is called of the system's libraries against tables that were written from the account of them, not from the code.

use aneforge_ane::symbols::{CORE_FOUNDATION, E5RT, Evidence, IO_SURFACE, Need, OBJC};
use aneforge_ane::{EXTENTS, MESSAGES, NEVER, STRIDES, limits};
use std::collections::BTreeSet;

const TABLE: &str = include_str!("../tables/e5rt.tsv");

/// A type, as the account writes it.
fn short(ty: &str) -> &str {
    match ty {
        "Handle" => "H",
        "Out" => "out",
        "Cell" => "cell",
        "Text" => "S",
        "Number" => "*u64",
        "Address" => "*ptr",
        other => other,
    }
}

#[test]
fn functions_are_called_as_the_account_says() {
    let rows: Vec<Vec<&str>> =
        TABLE.lines().filter(|l| !l.starts_with('#')).map(|l| l.split('\t').collect()).collect();
    assert_eq!(rows.len(), E5RT.len(), "rows of the table, functions of the code");
    for function in E5RT {
        let row = rows.iter().find(|row| row[0] == function.symbol);
        let row = row.unwrap_or_else(|| panic!("{} is in no table", function.symbol));
        let arguments: Vec<&str> = function.arguments.iter().map(|ty| short(ty)).collect();
        assert_eq!(arguments.join(" "), row[1], "{}", function.symbol);
        assert_eq!(
            if function.returns == "i32" { "status" } else { short(function.returns) },
            row[2],
            "{}",
            function.symbol
        );
        let need = if function.need == Need::Hard { "hard" } else { "soft" };
        assert_eq!(need, row[3], "{}", function.symbol);
        let evidence = match function.evidence {
            Evidence::Runs => "V",
            Evidence::Clients => "X",
            Evidence::Said => "D",
            Evidence::Public => "public",
        };
        assert_eq!(evidence, row[4], "{}", function.symbol);
    }
}

#[test]
fn what_must_never_be_called_is_not_in_the_tables() {
    for (symbol, _) in NEVER {
        assert!(E5RT.iter().all(|function| function.symbol != *symbol), "{symbol}");
    }
    for table in [E5RT, CORE_FOUNDATION, IO_SURFACE, OBJC] {
        let names: BTreeSet<&str> = table.iter().map(|function| function.symbol).collect();
        assert_eq!(names.len(), table.len(), "every function once");
    }
}

#[test]
fn messages_are_sent_as_the_account_says() {
    let table = include_str!("../tables/messages.tsv");
    let rows: Vec<Vec<&str>> =
        table.lines().filter(|l| !l.starts_with('#')).map(|l| l.split('\t').collect()).collect();
    let sent: Vec<Vec<&str>> =
        MESSAGES.iter().map(|m| vec![m.class, m.selector, m.arguments, m.returns]).collect();
    assert_eq!(sent, rows);
    // Selectors take as many arguments as they have colons.
    for message in MESSAGES {
        let arguments = message.arguments.split(", ").filter(|argument| !argument.is_empty()).count();
        assert_eq!(arguments, message.selector.matches(':').count(), "{}", message.selector);
    }
}

#[test]
fn limits_are_those_of_the_account() {
    assert_eq!((limits::MOST_PROGRAMS, limits::MOST_PROGRAMS_OF_ALL), (128, 144));
    assert_eq!((limits::ENGINE_MASK, limits::HOST_VISIBLE, limits::QUALITY_OF_SERVICE), (4, 0, 33));
    assert_eq!((limits::FUNCTION, limits::SEGMENTER), ("main", "graph"));
    assert_eq!([1, 64, 65, 800].map(limits::buffer_bytes), [64, 64, 128, 832].map(Some));
    assert_eq!(
        [usize::MAX, usize::MAX - 63, usize::MAX - 64].map(limits::buffer_bytes),
        [None, Some(usize::MAX - 63), Some(usize::MAX - 63)]
    );
    assert_eq!(EXTENTS, ["Batches", "Depth", "Channels", "Height", "Width"]);
    assert_eq!(STRIDES, ["BatchStride", "DepthStride", "PlaneStride", "RowStride"]);
    assert_eq!(limits::kernel_status(0xe000_02e2), Some("kIOReturnNotPermitted"));
    assert_eq!(limits::kernel_status(0xe000_0001), None);
}
