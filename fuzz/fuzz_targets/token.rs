//! No text is taken for a token.
#![no_main]

use codec::{Token, TokenKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    assert!(Token::decode(&TokenKey::new([7; 32]), text).is_err());
});
