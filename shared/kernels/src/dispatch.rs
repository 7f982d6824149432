//! Run-time choice of vector instructions: one body, compiled for what the machine may have.
//!
//! 1. The body is portable code. Wider instructions change its speed alone: nothing is fused or reassociated by them.
//! 2. `dispatch!` wraps a function that is `#[inline(always)]` into one that asks the machine (a cached look) and calls the
//!    copy compiled for it. `dispatch_fused!` tells the body as well whether multiplications and additions may be fused where it
//!    says so; its results are the same either way (see [`crate::Scale`]). `dispatch_masked!` tells whether what is compared
//!    becomes bits by one instruction ([`crate::Selection`]).

/// Defines `$name(args)` as `$body(args)`, compiled for AVX-512, for AVX2 and for the baseline.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$($generic:ident: $bound:path),+>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:path) => {
        $(#[$doc])*
        $vis fn $name $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,bmi2,popcnt")]
                fn avx512 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
                    $body($($arg),*)
                }

                #[target_feature(enable = "avx2,bmi2,popcnt")]
                fn avx2 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
                    $body($($arg),*)
                }

                if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("bmi2") {
                    if std::is_x86_feature_detected!("avx512bw")
                        && std::is_x86_feature_detected!("avx512vl")
                        && std::is_x86_feature_detected!("avx512dq")
                    {
                        // SAFETY: the machine has these instructions; avx512f and popcnt come with the ones asked for.
                        return unsafe { avx512($($arg),*) };
                    }
                    // SAFETY: the machine has these instructions; popcnt comes with AVX2.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}

/// Defines `$name(args)` as `$body::<FUSED>(args)`: with fused multiply-adds where the machine has them.
macro_rules! dispatch_fused {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$generic:ident: $bound:path>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:ident) => {
        $(#[$doc])*
        $vis fn $name $(<$generic: $bound>)? ($($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,bmi2,popcnt")]
                fn avx512 $(<$generic: $bound>)? ($($arg: $type),*) $(-> $result)? {
                    $body::<true $(, $generic)?>($($arg),*)
                }

                #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
                fn avx2 $(<$generic: $bound>)? ($($arg: $type),*) $(-> $result)? {
                    $body::<true $(, $generic)?>($($arg),*)
                }

                if std::is_x86_feature_detected!("avx2")
                    && std::is_x86_feature_detected!("fma")
                    && std::is_x86_feature_detected!("bmi2")
                {
                    if std::is_x86_feature_detected!("avx512bw")
                        && std::is_x86_feature_detected!("avx512vl")
                        && std::is_x86_feature_detected!("avx512dq")
                    {
                        // SAFETY: the machine has these instructions; avx512f and popcnt come with the ones asked for.
                        return unsafe { avx512($($arg),*) };
                    }
                    // SAFETY: the machine has these instructions; popcnt comes with AVX2.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body::<false $(, $generic)?>($($arg),*)
        }
    };
}

/// Defines `$name(args)` as `$body::<MASKED, …>(args)`: with masks of 64 bits where the machine has them (AVX-512).
macro_rules! dispatch_masked {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$generic:ident: $bound:path>)? ($($arg:ident: $type:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        $vis fn $name $(<$generic: $bound>)? ($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,bmi2,popcnt")]
                fn avx512 $(<$generic: $bound>)? ($($arg: $type),*) {
                    $body::<true $(, $generic)?>($($arg),*)
                }

                #[target_feature(enable = "avx2,bmi2,popcnt")]
                fn avx2 $(<$generic: $bound>)? ($($arg: $type),*) {
                    $body::<false $(, $generic)?>($($arg),*)
                }

                if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("bmi2") {
                    if std::is_x86_feature_detected!("avx512bw")
                        && std::is_x86_feature_detected!("avx512vl")
                        && std::is_x86_feature_detected!("avx512dq")
                    {
                        // SAFETY: the machine has these instructions; avx512f and popcnt come with the ones asked for.
                        return unsafe { avx512($($arg),*) };
                    }
                    // SAFETY: the machine has these instructions; popcnt comes with AVX2.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body::<false $(, $generic)?>($($arg),*);
        }
    };
}

pub(crate) use {dispatch, dispatch_fused, dispatch_masked};
