// Packing: a file's rows become panels of 16 rows in a format of formats.h.

#pragma once
#include "formats.h"
#include "ops.h"
#include "threads.h"

// Rows of a file's tensor on their way into a packed run.
typedef struct {
    Address source;  // the first of these rows, as the file stores them
    Address panels;  // the run's first panel
    uint32_t type, format, rows, cols;
    uint32_t first_row;      // of the run: where these rows go
    uint32_t pair_head_dim;  // 0, or: row i of a head's first half -> 2i, of its second -> 2i + 1
    uint32_t claimed, reserved;
} Packing;

static uint32_t source_row(const Packing *packing, uint32_t row) {
    uint32_t dim = packing->pair_head_dim;
    if (!dim) return row;
    return row / dim * dim + row % dim / 2 + row % 2 * (dim / 2);
}

static void pack_panel(const Packing *packing, uint32_t panel) {
    uint32_t first = panel * PANEL, end = packing->first_row + packing->rows;
    size_t bytes = file_row_bytes(packing->type, packing->cols);
    const uint8_t *source[PANEL] = {0};
    uint32_t from = MAX(first, packing->first_row) - first, to = MIN(end - first, PANEL);
    for (uint32_t row = from; row < to; row++) {
        uint32_t index = source_row(packing, first + row - packing->first_row);
        source[row] = AT(uint8_t, packing->source) + index * bytes;
    }
    uint8_t *out = AT(uint8_t, packing->panels) +
                   panel * panel_bytes(packing->format, packing->cols);
    pack_rows(out, packing->format, packing->type, packing->cols, from, to, source);
}

static void pack_panels(void *argument, uint32_t thread) {
    Packing *packing = argument;
    uint32_t first = packing->first_row / PANEL;
    uint32_t end = (packing->first_row + packing->rows + PANEL - 1) / PANEL;
    (void)thread;
    for (;;) {
        uint32_t panel = first + atomic_add(&packing->claimed, 1);
        if (panel >= end) return;
        pack_panel(packing, panel);
    }
}
