//! The names of files.

pub(super) fn manifest_name(generation: u64) -> String {
    format!("{generation:016}.checkpoint")
}

pub(super) fn pack_name(pack: u64) -> String {
    format!("{pack:016}.pack")
}

/// The number in a name that ends so.
pub(super) fn number_of(name: &str, suffix: &str) -> Option<u64> {
    name.strip_suffix(suffix)?.parse().ok()
}

/// Whether that is the name of a pack or of a manifest, as they are written here.
pub(crate) fn is_checkpoint_file(name: &str) -> bool {
    number_of(name, ".checkpoint").is_some_and(|generation| manifest_name(generation) == name)
        || number_of(name, ".pack").is_some_and(|pack| pack_name(pack) == name)
}
