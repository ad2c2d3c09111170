// One word of the half group: four int8 of each of 64 rows of x by those of the weight.
{
  let xa = xs[16u * (WORDS * half + ${word}u) + ty];
  let xb = xs[16u * (WORDS * half + ${word}u) + ty + 8u];
  let wa = ws[16u * (WORDS * half + ${word}u) + tx];
  let wb = ws[16u * (WORDS * half + ${word}u) + tx + 8u];
  p0a += dots(xa.x, wa);
  p0b += dots(xa.x, wb);
  p1a += dots(xa.y, wa);
  p1b += dots(xa.y, wb);
  p2a += dots(xa.z, wa);
  p2b += dots(xa.z, wb);
  p3a += dots(xa.w, wa);
  p3b += dots(xa.w, wb);
  p4a += dots(xb.x, wa);
  p4b += dots(xb.x, wb);
  p5a += dots(xb.y, wa);
  p5b += dots(xb.y, wb);
  p6a += dots(xb.z, wa);
  p6b += dots(xb.z, wb);
  p7a += dots(xb.w, wa);
  p7b += dots(xb.w, wb);
}
