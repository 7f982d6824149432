//! Codes of a dimension, of any of the three widths.

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
}

/// A dictionary code; 0 is "absent".
pub trait Code: Copy + PartialEq + sealed::Sealed {
    /// The code as an index.
    fn index(self) -> usize;

    /// The code of this width; `None` where it does not fit, so that no row can have it.
    fn narrow(code: u32) -> Option<Self>;
}

impl Code for u8 {
    #[inline(always)]
    fn index(self) -> usize {
        usize::from(self)
    }

    fn narrow(code: u32) -> Option<Self> {
        code.try_into().ok()
    }
}

impl Code for u16 {
    #[inline(always)]
    fn index(self) -> usize {
        usize::from(self)
    }

    fn narrow(code: u32) -> Option<Self> {
        code.try_into().ok()
    }
}

impl Code for u32 {
    #[inline(always)]
    fn index(self) -> usize {
        self as usize
    }

    fn narrow(code: u32) -> Option<Self> {
        Some(code)
    }
}
