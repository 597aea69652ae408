use super::*;
use crate::{AlignedBytes, Bytes};
use proptest::prelude::*;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

fn bytes(values: &[u8]) -> Tensor {
    Tensor::from_slice(shape(&[values.len()]), values).unwrap()
}

fn halves(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape(dims), &values.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>()).unwrap()
}

fn codes(dims: &[usize], values: &[i8]) -> Tensor {
    Tensor::from_slice(shape(dims), values).unwrap()
}

fn entries() -> Tensor {
    halves(&[16], &std::array::from_fn::<f32, 16, _>(|i| i as f32 - 7.5))
}

/// The worked rows and masks of the format's description.
#[test]
fn worked_examples_decode() {
    let int8 = Int8Weight::new(codes(&[1, 3], &[64, -127, 32]), halves(&[1], &[1.0 / 127.0])).unwrap();
    let scale = f16::from_f32(1.0 / 127.0).to_f32();
    let want = [64.0, -127.0, 32.0].map(|code| f16::from_f32(code * scale));
    assert_eq!(Weight::from(int8).to_f16(), want);
    let blocks = BlockwiseWeight::new(
        codes(&[1, 6], &[0, 64, 127, 76, 102, 127]),
        halves(&[1, 2], &[2.0 / 127.0, 5.0 / 127.0]),
    );
    let scales = [2.0f32, 5.0].map(|k| f16::from_f32(k / 127.0).to_f32());
    let want = [0.0, 64.0, 127.0, 76.0, 102.0, 127.0];
    let want: Vec<f16> = want.iter().zip(0..).map(|(q, i)| f16::from_f32(q * scales[i / 3])).collect();
    assert_eq!(Weight::from(blocks.unwrap()).to_f16(), want);
    let sparse =
        SparseWeight::new(shape(&[3, 4]), bytes(&[0x92, 0x08]), halves(&[4], &[1.5, 2.0, -1.0, 3.0]));
    let want = [0.0, 1.5, 0.0, 0.0, 2.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 3.0];
    assert_eq!(Weight::from(sparse.unwrap()).to_f32(), want);
    let lut = Lut4Weight::new(shape(&[1, 3]), bytes(&[0x10, 0x0f]), entries()).unwrap();
    assert_eq!(Weight::from(lut).to_f32(), [-7.5, -6.5, 7.5]);
}

#[test]
fn products_round_once_and_to_even() {
    // 3 times 683 / 2^24 lies between two subnormals; 127 times 1.0009766 is a tie.
    for (code, scale) in [(3i8, 4.07e-5f32), (127, 1.000_976_6), (-128, 511.75), (1, 6e-8)] {
        let scale = f16::from_f32(scale);
        let weight =
            Weight::from(Int8Weight::new(codes(&[1, 1], &[code]), halves(&[1], &[scale.to_f32()])).unwrap());
        let exact = f64::from(code) * scale.to_f64();
        assert_eq!(weight.to_f16(), [crate::round_f16(exact)], "{code} times {scale}");
    }
}

#[test]
fn wrong_parts_are_errors() {
    let error = |made: Result<Weight, WeightError>| made.unwrap_err().to_string();
    let int8 = |codes, scales| Int8Weight::new(codes, scales).map(Weight::from);
    let block = |codes, scales| BlockwiseWeight::new(codes, scales).map(Weight::from);
    let lut = |dims: &[usize], indices, table| Lut4Weight::new(shape(dims), indices, table).map(Weight::from);
    let sparse = |dims: &[usize], mask, v| SparseWeight::new(shape(dims), mask, v).map(Weight::from);
    let (four, two) = (codes(&[2, 2], &[1; 4]), halves(&[2], &[1.0; 2]));
    for (got, want) in [
        (error(int8(two.clone(), two.clone())), "codes of int8 weights are int8, got fp16"),
        (error(int8(four.clone(), four.clone())), "scales of int8 weights are fp16, got int8"),
        (
            error(int8(four.clone(), halves(&[3], &[1.0; 3]))),
            "scales of int8 weights have the shape [2] here, got [3]",
        ),
        (error(int8(codes(&[], &[1]), two.clone())), "int8 weights have at least one axis, got []"),
        (error(block(codes(&[4], &[1; 4]), two.clone())), "blockwise weights have two axes, got [4]"),
        (
            error(block(four.clone(), halves(&[2, 3], &[1.0; 6]))),
            "rows of 2 codes do not divide into 3 blocks",
        ),
        (
            error(block(four.clone(), halves(&[2, 1], &[1.0, -0.0]))),
            "scales of blockwise weights are not negative, got -0 at 1",
        ),
        (
            error(lut(&[2, 2], bytes(&[0; 3]), entries())),
            "indices of lut4 weights have the shape [2] here, got [3]",
        ),
        (
            error(lut(&[2, 2], bytes(&[0; 2]), two.clone())),
            "table of lut4 weights have the shape [16] here, got [2]",
        ),
        (
            error(sparse(&[2, 2], bytes(&[0x7]), two.clone())),
            "the mask sets 3 bits for 2 values, 0 of them behind the last element",
        ),
        (
            error(sparse(&[2, 2], bytes(&[0x11]), two.clone())),
            "the mask sets 2 bits for 2 values, 1 of them behind the last element",
        ),
        (
            error(Weight::assemble(Encoding::Lut4, shape(&[2]), vec![two.clone()])),
            "lut4 weights have 2 parts, got 1",
        ),
        (
            error(Weight::assemble(Encoding::Blockwise, shape(&[2, 3]), vec![four, two])),
            "codes of blockwise weights have the shape [2, 3] here, got [2, 2]",
        ),
    ] {
        assert_eq!(got, want);
    }
}

#[test]
fn encodings_follow_shapes_where_they_can() {
    let int8 = Weight::from(Int8Weight::new(codes(&[2, 6], &[1; 12]), halves(&[2], &[1.0, 2.0])).unwrap());
    assert_eq!(int8.reshape(shape(&[2, 3, 2])).unwrap().to_f16(), int8.to_f16());
    assert_eq!(
        int8.reshape(shape(&[1, 2, 6])).unwrap_err().to_string(),
        "int8 weights of shape [2, 6] do not stay encoded as [1, 2, 6]"
    );
    let lut = Weight::from(Lut4Weight::new(shape(&[2, 6]), bytes(&[0x21; 6]), entries()).unwrap());
    assert_eq!(lut.reshape(shape(&[12, 1])).unwrap().to_f16(), lut.to_f16());
    assert!(lut.reshape(shape(&[13])).is_err());
}

#[test]
fn identity_is_of_all_parts() {
    let (codes, one) = (codes(&[1, 2], &[3, 4]), halves(&[1], &[1.0]));
    let weight = |scales: &Tensor| Weight::from(Int8Weight::new(codes.clone(), scales.clone()).unwrap());
    let (same, other) = (weight(&one), weight(&halves(&[1], &[1.0])));
    assert_eq!(weight(&one).identity(), same.identity());
    assert_ne!(other.identity(), same.identity());
    assert_eq!(other, same);
    assert_ne!(Weight::from(codes.clone()).identity(), same.identity());
}

/// A weight of each encoding with a number of elements that crosses groups, made of random bytes.
fn weight(encoding: Encoding, [rows, columns]: [usize; 2], random: &[u8]) -> Weight {
    let of = |count: usize| random.iter().cycle().take(count).copied().collect::<Vec<u8>>();
    let count = rows * columns;
    let tensor = |dtype: DType, bytes: Vec<u8>| {
        let of = shape(&[bytes.len() / dtype.size()]);
        Tensor::new(dtype, of, Bytes::new(bytes)).unwrap()
    };
    let scales = |n: usize| halves(&[n], &of(n).iter().map(|&b| f32::from(b) / 64.0).collect::<Vec<_>>());
    let parts = match encoding {
        Encoding::Dense => vec![halves(&[count], &vec![0.5; count])],
        Encoding::Int8 => vec![tensor(DType::I8, of(count)), scales(rows)],
        Encoding::Blockwise => vec![tensor(DType::I8, of(count)), scales(rows * 2)],
        Encoding::Lut4 => vec![bytes(&of(count.div_ceil(2))), entries()],
        Encoding::Sparse => {
            let mut mask = of(count.div_ceil(8));
            mask[0] |= 1;
            if !count.is_multiple_of(8) {
                *mask.last_mut().unwrap() &= (1 << (count % 8)) - 1;
            }
            let set: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
            vec![bytes(&mask), scales(set as usize)]
        }
    };
    Weight::assemble(encoding, shape(&[rows, columns]), parts).unwrap()
}

proptest! {
    #[test]
    fn parts_of_a_weight_read_as_the_whole(
        random in proptest::collection::vec(any::<u8>(), 1..50),
        rows in 1usize..80,
        half in 1usize..70,
        start in 0usize..5000,
        len in 0usize..3000,
    ) {
        for encoding in Encoding::ALL {
            let weight = weight(encoding, [rows, 2 * half], &random);
            let all = weight.to_f16();
            let start = start % all.len();
            let mut some = vec![f16::NAN; len.min(all.len() - start)];
            weight.read_f16(start, &mut some);
            prop_assert_eq!(&some[..], &all[start..start + some.len()]);
            let parts = weight.parts().into_iter().cloned().collect();
            prop_assert_eq!(Weight::assemble(encoding, weight.shape(), parts).unwrap(), weight.clone());
            prop_assert_eq!(weight.to_dense().to_f16(), all);
        }
    }

    /// Whatever a file gives, there is a weight or an error.
    #[test]
    fn hostile_parts_never_panic(
        encoding in 0usize..5,
        dims in proptest::collection::vec(1usize..1 << 40, 0..5),
        parts in proptest::collection::vec((0usize..9, 1usize..40), 0..4),
    ) {
        let dtypes = [
            DType::F16, DType::Bf16, DType::F32, DType::F64, DType::U8, DType::I8, DType::I32, DType::I64, DType::Bool,
        ];
        let part = |&(dtype, count): &(usize, usize)| {
            let bytes = Bytes::new(AlignedBytes::zeroed(count * dtypes[dtype].size()));
            Tensor::new(dtypes[dtype], shape(&[count]), bytes).unwrap()
        };
        if let Ok(shape) = Shape::new(&dims) {
            let made = Weight::assemble(Encoding::ALL[encoding], shape, parts.iter().map(part).collect());
            if let Ok(weight) = made {
                prop_assert_eq!(weight.to_f16().len(), shape.count());
            }
        }
    }
}

/// What the parts tell at once is what the values tell.
#[test]
fn the_first_value_beyond_half_precision_is_found_in_every_encoding() {
    let all: [i8; 4] = [0, 1, 127, -128];
    let odd = [1.0, 511.5, 511.8, 512.0, 516.0, 65504.0, f32::INFINITY, f32::NAN];
    let mut found = [0, 0];
    let mut check = |weight: Weight| {
        let want = weight.to_f16().iter().position(|value| !value.is_finite());
        assert_eq!(weight.first_beyond_half(), want, "{weight:?}");
        found[usize::from(want.is_some())] += 1;
    };
    for scale in odd {
        for code in all {
            let row = codes(&[2, 2], &[0, 1, 0, code]);
            check(Int8Weight::new(row.clone(), halves(&[2], &[1.0, scale])).unwrap().into());
            check(BlockwiseWeight::new(row, halves(&[2, 2], &[1.0, 1.0, 1.0, scale])).unwrap().into());
        }
        let mut table = [0.0; 16];
        table[5] = scale;
        for index in [0x05, 0x51, 0x33] {
            let table = halves(&[16], &table);
            check(Lut4Weight::new(shape(&[2, 2]), bytes(&[0, index]), table).unwrap().into());
        }
        check(
            SparseWeight::new(shape(&[8]), bytes(&[0b1001_0000]), halves(&[2], &[1.0, scale]))
                .unwrap()
                .into(),
        );
    }
    assert!(found.iter().all(|&count| count > 10), "{found:?}");
}
