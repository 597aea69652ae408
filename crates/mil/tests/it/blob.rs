//! The weights file: worked bytes, both placements, and files that nobody vouches for.

use aneforge_mil::blob::{ALIGNMENT, BlobDType, BlobError, BlobFile, BlobLayout, BlobWriteError, BlobWriter};
use aneforge_mil::weights::{PackError, pack_uint1, pack_uint4, unpack_uint1, unpack_uint4};
use aneforge_mil::{BlobDirectory, Placement};
use proptest::prelude::*;

/// Two payloads: fp16 `[1.0, 2.0, -0.5]` and int8 `[1, -1, 127, -127, 0]`.
const PAYLOADS: [(BlobDType, &[u8]); 2] =
    [(BlobDType::Fp16, &[0, 0x3c, 0, 0x40, 0, 0xb8]), (BlobDType::Int8, &[1, 0xff, 0x7f, 0x81, 0])];

fn write(placement: Placement, payloads: &[(BlobDType, &[u8])]) -> (Vec<u8>, BlobDirectory) {
    let mut layout = BlobLayout::new(placement);
    for (dtype, bytes) in payloads {
        layout.push(*dtype, bytes.len() as u64);
    }
    let directory = layout.directory().clone();
    let len = layout.file_len();
    let mut writer = BlobWriter::new(Vec::new(), layout).expect("a header");
    for (_, bytes) in payloads {
        writer.begin().expect("a record");
        for chunk in bytes.chunks(3) {
            writer.write(chunk).expect("room");
        }
    }
    let bytes = writer.finish().expect("all records");
    assert_eq!(bytes.len() as u64, len);
    (bytes, directory)
}

#[test]
fn worked_bytes() {
    let (bytes, directory) = write(Placement::Packed, &PAYLOADS);
    let mut expected = vec![0; 203];
    for (at, hex) in [
        (0x00, "02000000 02000000"),
        (0x40, "efbeadde 01000000 0600000000000000 8000000000000000"),
        (0x80, "003c 0040 00b8"),
        (0x86, "efbeadde 04000000 0500000000000000 c600000000000000"),
        (0xc6, "01ff7f8100"),
    ] {
        let digits: String = hex.split(' ').collect();
        for i in 0..digits.len() / 2 {
            expected[at + i] = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap();
        }
    }
    assert_eq!(bytes, expected);
    let file = BlobFile::parse(&bytes).unwrap();
    assert_eq!(file.directory(), &directory);
    assert_eq!(file.records().iter().map(|r| r.offset).collect::<Vec<_>>(), [64, 134]);
    for (record, (dtype, payload)) in file.records().iter().zip(PAYLOADS) {
        assert_eq!((record.dtype, file.payload(record)), (dtype, payload));
        assert_eq!(file.at(record.offset).as_ref(), Ok(record));
    }
    assert_eq!(file.at(65), Err(BlobError::NoRecord { offset: 65 }));
}

#[test]
fn no_records() {
    let (bytes, _) = write(Placement::Packed, &[]);
    assert_eq!(bytes.len(), 64);
    assert!(BlobFile::parse(&bytes).unwrap().records().is_empty());
}

#[test]
fn aligned() {
    let (bytes, directory) = write(Placement::Aligned64, &PAYLOADS);
    let file = BlobFile::parse(&bytes).unwrap();
    assert_eq!(file.directory(), &directory);
    assert!(file.records().iter().all(|r| r.offset % ALIGNMENT == 0 && r.data_offset % ALIGNMENT == 0));
    assert_eq!(file.records().iter().map(|r| r.offset).collect::<Vec<_>>(), [64, 192]);
    // A file whose last block is filled up.
    let filled = [bytes.as_slice(), &[0; 59]].concat();
    assert_eq!(BlobFile::parse(&filled).unwrap().directory(), &directory);
}

#[test]
fn codes() {
    for (i, dtype) in BlobDType::ALL.into_iter().enumerate() {
        assert_eq!(dtype.code() as usize, i + 1);
        assert_eq!(BlobDType::from_code(dtype.code()), Some(dtype));
        assert_eq!(dtype.payload_len(16), Some(2 * dtype.bits()));
        assert_eq!(dtype.payload_len(u64::MAX).is_none(), dtype.bits() > 1);
    }
    assert_eq!((BlobDType::from_code(0), BlobDType::from_code(18)), (None, None));
}

#[test]
fn writer_holds_to_the_plan() {
    let layout = || {
        let mut layout = BlobLayout::default();
        layout.push(BlobDType::Int8, 3);
        layout
    };
    let writer = || BlobWriter::new(Vec::new(), layout()).unwrap();
    let length = |error: BlobWriteError| match error {
        BlobWriteError::Length { index: 0, given, .. } => given,
        other => panic!("{other}"),
    };
    let mut early = writer();
    assert!(matches!(early.write(&[1]), Err(BlobWriteError::NoRecord { index: 0, planned: 1 })));
    let mut long = writer();
    long.begin().unwrap();
    long.write(&[1, 2]).unwrap();
    assert_eq!(length(long.write(&[3, 4]).unwrap_err()), 4);
    // What was refused was not written.
    long.write(&[3]).unwrap();
    assert!(matches!(long.begin(), Err(BlobWriteError::NoRecord { index: 1, planned: 1 })));
    assert_eq!(long.finish().unwrap().len(), 131);
    let error = writer().record(&[1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "record 0 (descriptor at 64): the layout plans 3 payload bytes, 1 were given"
    );
    assert!(matches!(writer().finish(), Err(BlobWriteError::Missing { written: 0, planned: 1 })));
    let mut full: &mut [u8] = &mut [0; 70];
    let mut writer = BlobWriter::new(&mut full, layout()).unwrap();
    assert!(matches!(writer.begin(), Err(BlobWriteError::Io { .. })));
}

/// One field of a good file changed, and the error that names it.
#[test]
fn bad_files() {
    let good = write(Placement::Packed, &PAYLOADS).0;
    let cases: [(usize, &[u8], &str); 15] = [
        (4, &[1], "weights file version 1 is not supported; expected 2"),
        (0, &[3], "record 2 of 3: no room for a descriptor at 203, the file ends at 203"),
        (0, &[1], "1 records end at 134, but the file goes on to 203; the count in the header is wrong"),
        (0, &[0xff; 4], "record 2 of 4294967295: no room"),
        (64, &[0], "record 0 at 64: expected the sentinel 0xdeadbeef, found 0xdeadbe00"),
        (68, &[99], "record 0 at 64: unknown element type code 99"),
        (72, &[0xff; 8], "record 0 at 64: 18446744073709551615 payload bytes at 128 run past the end, 203"),
        (72, &[5], "record 0 at 64: 5 bytes with 0 unused bits are not a whole number of fp16 elements"),
        (80, &[127], "record 0 at 64: the payload starts at 127, inside or before its descriptor"),
        (80, &[0], "record 0 at 64: the payload starts at 0, inside or before its descriptor"),
        (
            80,
            &[0xff; 8],
            "record 0 at 64: the payload starts at 18446744073709551615, 64 bytes or more behind",
        ),
        (80, &[192], "record 0 at 64: the payload starts at 192, 64 bytes or more behind"),
        (80, &[191], "record 1 of 2: no room for a descriptor at 197"),
        (88, &[1], "record 0 at 64: 6 bytes with 1 unused bits"),
        (158, &[1], "record 1 at 134: 5 bytes with 1 unused bits"),
    ];
    for (at, patch, message) in cases {
        let mut bytes = good.clone();
        bytes[at..at + patch.len()].copy_from_slice(patch);
        let error = BlobFile::parse(&bytes).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    for len in 0..good.len() {
        assert!(BlobFile::parse(&good[..len]).is_err(), "{len}");
    }
}

#[test]
fn sub_byte_payloads() {
    // Section 9.6: [0, 1.5, 0, 0 / 2, 0, 0, -1 / 0, 0, 0, 3].
    let present = [0.0, 1.5, 0.0, 0.0, 2.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 3.0].map(|v| v != 0.0);
    assert_eq!(pack_uint1(&present), [0x92, 0x08]);
    assert_eq!(unpack_uint1(&[0x92, 0x08], 12).unwrap(), present);
    assert_eq!(pack_uint4(&[16]), Err(PackError::Range { index: 0, value: 16 }));
    let error = unpack_uint4(&[0; 3], 4).unwrap_err();
    assert_eq!(error.to_string(), "4 uint4 elements take 2 bytes, found 3");
}

/// A record whose elements are smaller than a byte may leave bits of its last byte unused, if it has one.
#[test]
fn unused_bits() {
    for (payload, unused, good) in
        [(&[] as &[u8], 0, true), (&[], 1, false), (&[1], 0, true), (&[1], 7, true), (&[1], 8, false)]
    {
        let mut bytes = write(Placement::Packed, &[(BlobDType::Uint1, payload)]).0;
        bytes[88] = unused;
        assert_eq!(BlobFile::parse(&bytes).is_ok(), good, "{payload:?} {unused}");
    }
}

/// Reads every payload; a hostile file must not get further than an error.
fn read_all(bytes: &[u8]) {
    if let Ok(file) = BlobFile::parse(bytes) {
        let payloads: u64 = file.records().iter().map(|r| file.payload(r).len() as u64 + 64).sum();
        assert!(payloads <= bytes.len() as u64);
    }
}

proptest! {
    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_all(&bytes);
        // With a header that is right, so that descriptors are reached.
        let header = [[9, 0, 0, 0, 2, 0, 0, 0].as_slice(), &[0; 56], &0xdead_beef_u32.to_le_bytes()].concat();
        read_all(&[header, bytes].concat());
    }

    #[test]
    fn mutated_files(
        aligned in any::<bool>(),
        changes in prop::collection::vec((0usize..260, prop_oneof![Just(0u8), Just(255), any::<u8>()]), 1..6),
        cut in 0usize..260,
    ) {
        let placement = if aligned { Placement::Aligned64 } else { Placement::Packed };
        let mut bytes = write(placement, &PAYLOADS).0;
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        read_all(&bytes);
        bytes.truncate(cut);
        read_all(&bytes);
    }

    #[test]
    fn written_files_read_back(
        aligned in any::<bool>(),
        payloads in prop::collection::vec((0usize..17, prop::collection::vec(any::<u8>(), 0..50)), 0..8),
    ) {
        let placement = if aligned { Placement::Aligned64 } else { Placement::Packed };
        let payloads: Vec<_> = payloads.iter().map(|(dtype, bytes)| {
            let dtype = BlobDType::ALL[*dtype];
            (dtype, &bytes[..bytes.len() / 4 * 4])
        }).collect();
        let (bytes, directory) = write(placement, &payloads);
        let file = BlobFile::parse(&bytes).unwrap();
        prop_assert_eq!(file.directory(), &directory);
        for (record, (_, payload)) in file.records().iter().zip(payloads) {
            prop_assert_eq!(file.payload(record), payload);
        }
    }

    #[test]
    fn packing_is_inverse(nibbles in prop::collection::vec(0u8..16, 0..40), bits in prop::collection::vec(any::<bool>(), 0..40)) {
        prop_assert_eq!(unpack_uint4(&pack_uint4(&nibbles).unwrap(), nibbles.len()).unwrap(), nibbles);
        prop_assert_eq!(unpack_uint1(&pack_uint1(&bits), bits.len()).unwrap(), bits);
    }
}
