// Softening logits: distributions at a temperature, their entropy and divergence, and the gradient that a student gets.

/** The softmax of logits / temperature; the largest is taken off first, so that nothing overflows. */
export function soften(logits, temperature) {
  const most = Math.max(...logits), raised = logits.map((value) => Math.exp((value - most) / temperature));
  const total = raised.reduce((a, b) => a + b, 0);
  return raised.map((value) => value / total);
}

/** In nats; a probability of 0 adds nothing. */
export const entropy = (p) => p.reduce((total, value) => total - (value > 0 ? value * Math.log(value) : 0), 0);

/** KL(p || q) in nats. */
export const divergence = (p, q) => p.reduce((total, value, i) => total + (value > 0 ? value * Math.log(value / q[i]) : 0), 0);

/** Norm of the gradient of KL(teacher || student) by the student's logits: of (q - p) / T, without the factor T^2. */
export function gradient(teacher, student, temperature) {
  const p = soften(teacher, temperature), q = soften(student, temperature);
  return Math.hypot(...q.map((value, i) => value - p[i])) / temperature;
}

/** Places of the largest values, largest first. */
export const ranking = (p) => p.map((_, i) => i).sort((a, b) => p[b] - p[a]);
