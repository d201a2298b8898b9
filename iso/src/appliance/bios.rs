//! What a machine runs that boots the medium by BIOS: a few instructions that say what to switch on.
//!
//! Called by [`super::compose`].

const TEXT: &[u8] = b"\r\nCofferdam boots by UEFI only.\r\nOpen the firmware's setup of this machine, switch its boot mode from BIOS (Legacy, CSM) \
to UEFI,\r\nand boot this medium again.\r\n\0";

/// Real mode code at 0000:7C00: it prints [`TEXT`] by INT 10h and waits for ever.
///
/// `xor ax,ax; mov ds,ax; cld; mov si,7C00h+1Ah; again: lodsb; test al,al; jz halt; mov ah,0Eh; mov bx,7; int 10h;
/// jmp again; halt: hlt; jmp halt`, filled up to 26 bytes.
const CODE: [u8; 26] = [
    0x31, 0xc0, 0x8e, 0xd8, 0xfc, 0xbe, 0x1a, 0x7c, 0xac, 0x84, 0xc0, 0x74, 0x09, 0xb4, 0x0e, 0xbb, 0x07, 0x00, 0xcd,
    0x10, 0xeb, 0xf2, 0xf4, 0xeb, 0xfd, 0x90,
];

/// Boot code for a master boot record, at most 440 bytes, or for an optical disc's boot image when it is filled up.
pub(crate) fn code() -> Vec<u8> {
    let mut code = CODE.to_vec();
    code.extend_from_slice(TEXT);
    code
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn it_fits_into_a_master_boot_record() {
        assert!(code().len() <= 440);
        assert_eq!(code().get(0x1a..0x1c), Some(b"\r\n".as_slice()), "the text is where the code looks for it");
    }
}
