// Serves the kernels over stdin and stdout, so that tests can run builds for other machines:
//
//   python -m ziglang cc -target aarch64-linux-musl -static -O3 -mcpu=generic+v8_2a+dotprod \
//       -ffp-contract=off -fno-math-errno -Isrc/webllm/backends/cpu tests/unit/cpu_server.c -o /tmp/dotprod
//   WEBLLM_CPU_SERVERS="'qemu-aarch64-static /tmp/dotprod'" pytest tests/unit/test_cpu_ops.py
//
// The name of the program is that of its forms (tests/unit/test_cpu_forms.py).

#include <stdio.h>

#include "kernels.c"

enum { ALLOCATE, WRITE, READ, RUN, PACK, DEQUANTIZE, DESCRIBE };

int main(void) {
    Pool *pool = pool_create(2);
    uint64_t command[5];
    while (fread(command, sizeof command, 1, stdin) == 1) {
        uint64_t *a = command + 1, answer = 0;
        switch (command[0]) {
            case ALLOCATE: answer = ((uint64_t)(uintptr_t)calloc(1, a[0] + 64) + 63) & ~63ull; break;
            case WRITE: answer = fread(AT(void, a[0]), 1, a[1], stdin); break;
            case READ: fwrite(AT(void, a[0]), 1, a[1], stdout); break;
            case RUN: run(pool, AT(Plan, a[0])); break;
            case PACK: pack(pool, AT(Packing, a[0])); break;
            case DEQUANTIZE: dequantize(AT(Packing, a[0]), AT(float, a[1])); break;
            case DESCRIBE: answer = kv_element_bytes(); break;
        }
        fwrite(&answer, sizeof answer, 1, stdout);
        fflush(stdout);
    }
    return 0;
}
