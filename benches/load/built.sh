# Builds what is measured, and says where it lies: sourced by the scripts beside it, in this directory.
cargo build --quiet --release
cargo build --quiet --release --manifest-path ../../Cargo.toml --example bench_server
built() {
    local directory
    directory=$(cargo metadata --no-deps --format-version 1 --manifest-path "$1" |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    echo "$directory/release/$2"
}
