//! Prints the CRDs as one YAML stream: `cargo run -p onex-crds --example print | kubectl apply -f -`.
#![allow(clippy::print_stdout)]

fn main() {
    for crd in onex_crds::crds() {
        println!("---\n{}", serde_saphyr::to_string(&crd).expect("a CRD is plain data"));
    }
}
