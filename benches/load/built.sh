# Builds the measured programs and prints their paths. The other scripts in this directory source this file.
cargo build --quiet --release
cargo build --quiet --release --manifest-path ../../Cargo.toml --example bench_server
built() {
    local directory
    directory=$(cargo metadata --no-deps --format-version 1 --manifest-path "$1" |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    echo "$directory/release/$2"
}
