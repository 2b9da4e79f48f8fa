//! Generates the messages and the services from `matriarch/v1`, and their descriptors. Needs `protoc`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = std::env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .file_descriptor_set_path(folder.join("matriarch.bin"))
        .compile_protos(&["matriarch/v1/admin.proto", "matriarch/v1/peer.proto"], &["."])
}
