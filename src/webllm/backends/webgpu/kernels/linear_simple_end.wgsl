  if first + ${token}u < count {
    finish_rows(first + ${token}u, row, low${token}, high${token});
  }
