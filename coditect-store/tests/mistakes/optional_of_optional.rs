use coditect_store::keyspace::KeyPart;

const ELEMENTS: usize = <Option<Option<u64>> as KeyPart>::ELEMENTS;

fn main() {}
