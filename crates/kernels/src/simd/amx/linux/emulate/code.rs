//! Instructions on tiles, decoded.

/// An instruction, on tiles by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    Configure(Address),
    Release,
    Zero(usize),
    Load(usize, Address),
    Store(usize, Address),
    /// The tile of sums, of the left and of the right operand.
    Product(Numbers, [usize; 3]),
}

/// What a product multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    Bf16,
    F16,
}

/// Rows in memory: registers by their numbers, and what is added to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) base: usize,
    /// How far rows lie apart: a register, shifted so far to the left.
    pub(super) stride: Option<(usize, u8)>,
    pub(super) displacement: i32,
}

/// The instruction that starts with `byte(0)`, and its length. All are `VEX.128.0F38.W0`; addresses without a base do not
/// occur.
pub(super) fn decode(byte: impl Fn(usize) -> u8) -> Option<(Instruction, usize)> {
    // Bits that extend the numbers of registers are turned, as is `vvvv`.
    if byte(0) != 0xc4 || byte(1) & 0b1001_1111 != 0b1000_0010 {
        return None;
    }
    let (vex, opcode, modes) = (byte(2), byte(3), byte(4));
    if vex & 0b1000_0100 != 0 {
        return None;
    }
    let (prefix, other) = (vex & 0b11, usize::from(!vex >> 3 & 0xf));
    let (tile, last, in_memory) = (usize::from(modes >> 3 & 7), usize::from(modes & 7), modes >> 6 < 3);
    let address = || address(&byte);
    let length = if in_memory { 0 } else { 5 };
    let instruction = match (opcode, prefix, in_memory) {
        (0x49, 0, false) if modes == 0xc0 => Instruction::Release,
        (0x49, 3, false) => Instruction::Zero(tile),
        (0x5c, 2, false) => Instruction::Product(Numbers::Bf16, [tile, last, other]),
        (0x5c, 3, false) => Instruction::Product(Numbers::F16, [tile, last, other]),
        (0x49, 0, true) => return address().map(|(at, length)| (Instruction::Configure(at), length)),
        (0x4b, 1 | 3, true) => return address().map(|(at, length)| (Instruction::Load(tile, at), length)),
        (0x4b, 2, true) => return address().map(|(at, length)| (Instruction::Store(tile, at), length)),
        _ => return None,
    };
    Some((instruction, length))
}

/// The address of an instruction, and the instruction's length.
fn address(byte: &impl Fn(usize) -> u8) -> Option<(Address, usize)> {
    let extended = |number: u8, bit: u8| usize::from(number & 7 | (!byte(1) >> bit & 1) << 3);
    let (mode, plain) = (byte(4) >> 6, byte(4) & 7);
    let (mut at, mut stride, mut base) = (5, None, plain);
    if plain == 4 {
        let index = extended(byte(5) >> 3, 6);
        stride = (index != 4).then_some((index, byte(5) >> 6));
        (base, at) = (byte(5) & 7, 6);
    }
    let (displacement, size) = match mode {
        0 if base == 5 => return None,
        0 => (0, 0),
        1 => (i32::from(byte(at).cast_signed()), 1),
        _ => (i32::from_le_bytes(std::array::from_fn(|index| byte(at + index))), 4),
    };
    Some((Address { base: extended(base, 5), stride, displacement }, at + size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(code: &[u8]) -> Option<Instruction> {
        let (instruction, length) = decode(|at| code[at])?;
        assert_eq!(length, code.len());
        Some(instruction)
    }

    /// As the assembler writes them.
    #[test]
    fn instructions_are_decoded() {
        let at = |base, stride, displacement| Address { base, stride: Some((stride, 0)), displacement };
        let product = |numbers, tiles| Some(Instruction::Product(numbers, tiles));
        // `tdpfp16ps tmm1, tmm4, tmm7`, `tdpfp16ps tmm5, tmm0, tmm2`, `tdpbf16ps tmm1, tmm4, tmm7`.
        assert_eq!(decoded(&[0xc4, 0xe2, 0x43, 0x5c, 0xcc]), product(Numbers::F16, [1, 4, 7]));
        assert_eq!(decoded(&[0xc4, 0xe2, 0x6b, 0x5c, 0xe8]), product(Numbers::F16, [5, 0, 2]));
        assert_eq!(decoded(&[0xc4, 0xe2, 0x42, 0x5c, 0xcc]), product(Numbers::Bf16, [1, 4, 7]));
        // `tilezero tmm2` and `tilerelease`.
        assert_eq!(decoded(&[0xc4, 0xe2, 0x7b, 0x49, 0xd0]), Some(Instruction::Zero(2)));
        assert_eq!(decoded(&[0xc4, 0xe2, 0x78, 0x49, 0xc0]), Some(Instruction::Release));
        // `tileloadd tmm0, [rax + rcx]`, `tileloaddt1 tmm4, [r8 + r9]`, `tileloadd tmm0, [rax + rcx + 64]`.
        let load = |tile, at| Some(Instruction::Load(tile, at));
        assert_eq!(decoded(&[0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x08]), load(0, at(0, 1, 0)));
        assert_eq!(decoded(&[0xc4, 0x82, 0x79, 0x4b, 0x24, 0x08]), load(4, at(8, 9, 0)));
        assert_eq!(decoded(&[0xc4, 0xe2, 0x7b, 0x4b, 0x44, 0x08, 0x40]), load(0, at(0, 1, 64)));
        // `tilestored [rax + rcx + 2112], tmm3` and `ldtilecfg [rdi]`.
        let store = Some(Instruction::Store(3, at(0, 1, 2112)));
        assert_eq!(decoded(&[0xc4, 0xe2, 0x7a, 0x4b, 0x9c, 0x08, 0x40, 0x08, 0, 0]), store);
        let configure = Instruction::Configure(Address { base: 7, stride: None, displacement: 0 });
        assert_eq!(decoded(&[0xc4, 0xe2, 0x78, 0x49, 0x07]), Some(configure));
        // `tdpbssd tmm1, tmm4, tmm7`, and `vfmadd213ps xmm0, xmm1, xmm2`.
        assert_eq!(decoded(&[0xc4, 0xe2, 0x43, 0x5e, 0xcc]), None);
        assert_eq!(decoded(&[0xc4, 0xe2, 0x71, 0xa8, 0xc2]), None);
    }
}
