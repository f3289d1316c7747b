use coditect_store::keyspace::KeyPart;

#[derive(Clone, KeyPart)]
enum Binding {
    #[key(name = "hard")]
    Hard,
    SoftCover,
}

fn main() {}
