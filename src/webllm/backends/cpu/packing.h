// Packs rows of a model file into panels of 16 rows, in a format of formats.h.

#pragma once
#include "formats.h"
#include "ops.h"
#include "threads.h"

// One call's work: some rows of a tensor go to a run of a packed weight. structs.py packs it.
typedef struct {
    Address planes[MAX_PLANES];  // the rows as the file stores them; unused ones repeat the first
    Address panels;              // the run's first panel
    Storage storage;
    uint32_t format, rows, cols;
    uint32_t first_row;      // row of the run that the first of these rows becomes
    uint32_t pair_head_dim;  // if not 0: a head's rows (i, i + dim / 2) become (2i, 2i + 1)
    uint32_t claimed;        // panels that threads have taken
    uint32_t out_of_range;   // panels with scales that f16 cannot hold
} Packing;

static uint32_t source_row(const Packing *packing, uint32_t row) {
    uint32_t dim = packing->pair_head_dim;
    if (!dim) return row;
    return row / dim * dim + row % dim / 2 + row % 2 * (dim / 2);
}

static Row row_of(const Packing *packing, uint32_t index) {
    size_t block = (size_t)index * (packing->cols / packing->storage.block_elements);
    Row row;
    for (int p = 0; p < MAX_PLANES; p++) {
        row.planes[p] = AT(uint8_t, packing->planes[p]) + block * packing->storage.block_bytes[p];
    }
    return row;
}

static int pack_panel(const Packing *packing, uint32_t panel) {
    uint32_t first = panel * PANEL, end = packing->first_row + packing->rows;
    uint32_t from = MAX(first, packing->first_row) - first, to = MIN(end - first, PANEL);
    Row source[PANEL];
    for (uint32_t row = from; row < to; row++) {
        uint32_t index = source_row(packing, first + row - packing->first_row);
        source[row] = row_of(packing, index);
    }
    uint8_t *out = AT(uint8_t, packing->panels) +
                   panel * panel_bytes(packing->format, packing->cols);
    return pack_rows(out, packing->format, &packing->storage, packing->cols, from, to, source);
}

static void pack_panels(void *argument, uint32_t thread) {
    Packing *packing = argument;
    uint32_t first = packing->first_row / PANEL;
    uint32_t end = (packing->first_row + packing->rows + PANEL - 1) / PANEL;
    (void)thread;
    for (;;) {
        uint32_t panel = first + atomic_add(&packing->claimed, 1);
        if (panel >= end) return;
        if (!pack_panel(packing, panel)) atomic_add(&packing->out_of_range, 1);
    }
}
