//! Small unsigned numbers of any of three widths: codes of a dimension, offsets of times, digits of decimals.

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
}

/// A number of one of the widths. As a dictionary code or as digits, 0 is "absent".
pub trait Code: Copy + Ord + Into<u32> + Into<i64> + Into<f64> + sealed::Sealed {
    /// The code as an index.
    fn index(self) -> usize;

    /// The code of this width; `None` where it does not fit, so that no row can have it.
    fn narrow(code: u32) -> Option<Self>;

    /// The lowest bits of a number.
    fn truncate(number: u64) -> Self;
}

macro_rules! code {
    ($($width:ty)*) => {$(
        impl Code for $width {
            #[inline(always)]
            fn index(self) -> usize {
                self as usize
            }

            fn narrow(code: u32) -> Option<Self> {
                code.try_into().ok()
            }

            #[inline(always)]
            fn truncate(number: u64) -> Self {
                number as Self
            }
        }
    )*};
}
code!(u8 u16 u32);
