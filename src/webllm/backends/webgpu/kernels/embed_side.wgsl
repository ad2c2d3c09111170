@group(0) @binding(4) var<storage, read> side: array<u32>;
