"""Float64 oracle of linear autoencoders: loops written straight from the definitions.  Imports NumPy only.

Nothing here knows the library.  A loss is computed from its DEFINITION (the ordered loss as a sum over prefixes and
samples, dropout by masking each sample), a gradient by summing the gradients of the prefixes, an exact solve through
the full Kronecker system.  So agreement with the fused formulas is evidence and not a tautology.

Notation: X (m, d) and Y (m, q) hold samples in rows and are centred by the caller; A (q, p) is the decoder, B (p, d)
the encoder, S = Sxx, Syx = Sxy'.  `kind` is the name of a loss, `parameters` its numbers:

    mse, ordered: none     nested_dropout, stochastic_nested_dropout: prior (p,)     sum_l2, product_l2: lam
    nonuniform_l2: lams (p,)     mixed_l2: lam, w_sum, w_product
"""

import math

import numpy as np

DETERMINISTIC = ("mse", "ordered", "nested_dropout", "sum_l2", "nonuniform_l2", "product_l2", "mixed_l2")


# ---------------------------------------------------------------------------------------------------------------------
# moments and p x p pieces


def second_moments(x, y=None, weights=None, scale="sum"):
    """Return (Sxx (d, d), Sxy (d, q), tr Syy) of centred samples, summed one sample at a time."""
    y = x if y is None else y
    weights = np.ones(len(x)) if weights is None else weights
    sxx, sxy, yy_trace, total = np.zeros((x.shape[1],) * 2), np.zeros((x.shape[1], y.shape[1])), 0.0, 0.0
    for s in range(len(x)):
        for j in range(x.shape[1]):
            for k in range(x.shape[1]):
                sxx[j, k] += weights[s] * float(x[s, j]) * float(x[s, k])
            for k in range(y.shape[1]):
                sxy[j, k] += weights[s] * float(x[s, j]) * float(y[s, k])
        for k in range(y.shape[1]):
            yy_trace += weights[s] * float(y[s, k]) ** 2
        total += weights[s]
    factor = 1.0 if scale == "sum" else 1.0 / total
    return sxx * factor, sxy * factor, yy_trace * factor


def masked_gram(gram, prefix):
    """M o G with M_ij = prefix[max(i, j)], (p, p)."""
    p = len(prefix)
    out = np.zeros((p, p))
    for i in range(p):
        for j in range(p):
            out[i, j] = prefix[max(i, j)] * gram[i, j]
    return out


def rotation(gram):
    """(striu(G) - stril(G))/2, (p, p)."""
    p = len(gram)
    out = np.zeros((p, p))
    for i in range(p):
        for j in range(p):
            if j > i:
                out[i, j] = 0.5 * gram[i, j]
            elif j < i:
                out[i, j] = -0.5 * gram[i, j]
    return out


def prefix_counts(kind, p, prior=None, **_):
    """Weight w_b of the squared error of the first b units, b = 1..p; the prefix weights are c_i = sum_{b>=i} w_b."""
    if kind == "ordered":
        return [1.0] * p
    if kind in ("nested_dropout", "stochastic_nested_dropout"):
        return [float(value) for value in prior]
    return [0.0] * (p - 1) + [1.0]


def prefix_weights(kind, p, **parameters):
    """c_i = sum of the weights of all prefixes that contain unit i, (p,)."""
    counts = prefix_counts(kind, p, **parameters)
    return np.array([math.fsum(counts[i:]) for i in range(p)])


def penalties(kind, p, lam=0.0, lams=None, w_sum=1.0, w_product=0.0, **_):
    """(lam_1..lam_p, lam_pi)."""
    if kind == "sum_l2":
        return [lam] * p, 0.0
    if kind == "nonuniform_l2":
        return [float(value) for value in lams], 0.0
    if kind == "product_l2":
        return [0.0] * p, lam
    if kind == "mixed_l2":
        return [w_sum * lam] * p, w_product * lam
    return [0.0] * p, 0.0


# ---------------------------------------------------------------------------------------------------------------------
# losses and gradients


def squared_error(a, b, x, y, weights, kept):
    """sum_s w_s |y_s - A I_kept B x_s|^2 with the first `kept[s]` units, sample by sample."""
    total = 0.0
    for s in range(len(x)):
        code = [float(np.dot(b[i], x[s])) if i < kept[s] else 0.0 for i in range(b.shape[0])]
        for k in range(a.shape[0]):
            rebuilt = sum(a[k, i] * code[i] for i in range(b.shape[0]))
            total += weights[s] * (y[s, k] - rebuilt) ** 2
    return total


def penalty(kind, a, b, **parameters):
    """sum_i lam_i (|a_i|^2 + |b_i|^2) + lam_pi |AB|_F^2."""
    p = b.shape[0]
    lam, lam_pi = penalties(kind, p, **parameters)
    total = 0.0
    for i in range(p):
        total += lam[i] * (sum(v * v for v in a[:, i]) + sum(v * v for v in b[i]))
    for k in range(a.shape[0]):
        for j in range(b.shape[1]):
            total += lam_pi * sum(a[k, i] * b[i, j] for i in range(p)) ** 2
    return float(total)


def loss(kind, a, b, x, y=None, weights=None, scale="sum", kept=None, **parameters):
    """A loss from its definition.  `kept` (m,) are the drawn numbers of units of stochastic_nested_dropout."""
    y = x if y is None else y
    weights = np.ones(len(x)) if weights is None else weights
    divisor = 1.0 if scale == "sum" else float(sum(weights))
    if kind == "stochastic_nested_dropout":
        return squared_error(a, b, x, y, weights, kept) / divisor
    total = 0.0
    for count, weight in enumerate(prefix_counts(kind, b.shape[0], **parameters), start=1):
        if weight:
            total += weight * squared_error(a, b, x, y, weights, [count] * len(x))
    return total / divisor + penalty(kind, a, b, **parameters)


def gradients(kind, a, b, sxx, sxy=None, **parameters):
    """(dL/dA (q, p), dL/dB (p, d)) from moments: the sum over prefixes of 2 (A_b B_b Sxx - Syx) B_b' and so on."""
    p = b.shape[0]
    syx = sxx if sxy is None else sxy.T
    lam, lam_pi = penalties(kind, p, **parameters)
    da, db = np.zeros(a.shape), np.zeros(b.shape)
    for count, weight in enumerate(prefix_counts(kind, p, **parameters), start=1):
        a_b, b_b = a[:, :count], b[:count]
        error = a_b @ b_b @ sxx - syx
        da[:, :count] += 2.0 * weight * error @ b_b.T
        db[:count] += 2.0 * weight * a_b.T @ error
    for i in range(p):
        da[:, i] += 2.0 * lam[i] * a[:, i]
        db[i] += 2.0 * lam[i] * b[i]
    da += 2.0 * lam_pi * a @ b @ b.T
    db += 2.0 * lam_pi * a.T @ a @ b
    return da, db


def stochastic_gradients(a, b, x, y, kept, weights=None, scale="sum"):
    """Gradients of per-sample nested dropout for drawn `kept` (m,), sample by sample."""
    y = x if y is None else y
    weights = np.ones(len(x)) if weights is None else weights
    da, db = np.zeros(a.shape), np.zeros(b.shape)
    for s in range(len(x)):
        n = kept[s]
        code = b[:n] @ x[s]
        error = a[:, :n] @ code - y[s]
        da[:, :n] += 2.0 * weights[s] * np.outer(error, code)
        db[:n] += 2.0 * weights[s] * np.outer(a[:, :n].T @ error, x[s])
    divisor = 1.0 if scale == "sum" else float(sum(weights))
    return da / divisor, db / divisor


def masked_products(w, x, kept):
    """Row i of w times the moments of the samples that keep unit i, those with kept_s > i: (p, d)."""
    out = np.zeros(w.shape)
    for i in range(len(w)):
        for s in range(len(x)):
            if kept[s] > i:
                out[i] += (w[i] @ x[s]) * x[s]
    return out


def deep_gradients(kind, layers, n_encoder, sxx, sxy=None, **parameters):
    """Gradient of each layer of a linear chain x -> layers[0] x -> ...; the first `n_encoder` layers make B.

    The loss is evaluated on the products A and B, penalties included.
    """
    b = chain(layers[:n_encoder])
    a = chain(layers[n_encoder:])
    da, db = gradients(kind, a, b, sxx, sxy, **parameters)
    grads = []
    for i in range(len(layers)):
        first, last, outer = (0, n_encoder, db) if i < n_encoder else (n_encoder, len(layers), da)
        before, after = chain(layers[first:i]), chain(layers[i + 1 : last])
        value = outer if after is None else after.T @ outer
        grads.append(value if before is None else value @ before.T)
    return grads


def chain(layers):
    """Product layers[-1] ... layers[0], or None for no layer."""
    product = None
    for layer in layers:
        product = layer if product is None else layer @ product
    return product


def vae_loss(w, v, e, log_noise, x, weights=None):
    """-ELBO per sample of the linear VAE, sample by sample: expected log likelihood and Kullback-Leibler divergence.

    w (d, p) decoder, v (p, d) encoder, e (p,) log latent variances, log_noise the log noise variance.
    """
    weights = np.ones(len(x)) if weights is None else weights
    d, p = w.shape
    noise = math.exp(log_noise)
    total = 0.0
    for s in range(len(x)):
        mean = [float(np.dot(v[i], x[s])) for i in range(p)]
        # E |x - W z|^2 for z ~ N(mean, diag exp e): the error of the mean plus the variance through each column.
        error = 0.0
        for j in range(d):
            error += (x[s, j] - sum(w[j, i] * mean[i] for i in range(p))) ** 2
            error += sum(w[j, i] ** 2 * math.exp(e[i]) for i in range(p))
        reconstruction = error / (2.0 * noise) + 0.5 * d * math.log(2.0 * math.pi * noise)
        divergence = 0.5 * sum(-1.0 - e[i] + mean[i] ** 2 + math.exp(e[i]) for i in range(p))
        total += weights[s] * (reconstruction + divergence)
    return total / float(sum(weights))


def vae_gradients(w, v, e, log_noise, s):
    """Gradients of -ELBO by W, V, e and log noise, from the mean second moments S (d, d)."""
    d, p = w.shape
    noise = math.exp(log_noise)
    latent = np.diag(np.exp(e))
    dw = (w @ latent + w @ v @ s @ v.T - s @ v.T) / noise
    dv = (w.T @ w @ v @ s - w.T @ s) / noise + v @ s
    de = np.zeros(p)
    for i in range(p):
        de[i] = 0.5 * (math.exp(e[i]) * float(np.dot(w[:, i], w[:, i])) / noise - 1.0 + math.exp(e[i]))
    error = np.trace(w @ latent @ w.T) + np.trace(w.T @ w @ v @ s @ v.T) - 2.0 * np.trace(w @ v @ s) + np.trace(s)
    return dw, dv, de, 0.5 * d - error / (2.0 * noise)


# ---------------------------------------------------------------------------------------------------------------------
# rules: directions (descents) and exact solves


def encoder_only_direction(rule, b, s):
    """Descent direction of oja, gha, alpha_eigengame and mu_eigengame, component by component."""
    p = b.shape[0]
    z = [s @ b[i] for i in range(p)]
    gram = [[float(np.dot(b[i], z[j])) for j in range(p)] for i in range(p)]
    out = np.zeros(b.shape)
    for i in range(p):
        climb = z[i].copy()
        for j in range(p):
            if rule == "oja" or (rule == "gha" and j <= i) or (rule == "mu_eigengame" and j < i):
                climb -= gram[i][j] * b[j]
            elif rule == "alpha_eigengame" and j < i:
                climb -= gram[i][j] / gram[j][j] * z[j]
        out[i] = -climb
    return out


def rag_direction(a, b, s):
    """(direction of A, direction of B): mse gradient, minus Gam B for the encoder, plus A Gam for the decoder."""
    gam = rotation(b @ s @ b.T)
    da, db = gradients("mse", a, b, s)
    return da + a @ gam, db - gam @ b


def normalise_rows(b):
    """Each row scaled to length 1; zero rows stay."""
    out = b.copy()
    for i in range(len(b)):
        length = math.sqrt(sum(v * v for v in b[i]))
        if length > 0:
            out[i] = b[i] / length
    return out


def exact_encoder(kind, a, sxx, sxy=None, **parameters):
    """argmin_B L(A, B) from the full (p d) x (p d) normal equations; least norm."""
    p, d = a.shape[1], len(sxx)
    syx = sxx if sxy is None else sxy.T
    lam, lam_pi = penalties(kind, p, **parameters)
    c = prefix_weights(kind, p, **parameters)
    left = masked_gram(a.T @ a, c)
    system = np.kron(left, sxx) + np.kron(np.diag(lam), np.eye(d)) + lam_pi * np.kron(a.T @ a, np.eye(d))
    right = (np.diag(c) @ a.T @ syx).ravel()
    return np.linalg.lstsq(system, right, rcond=1e-12)[0].reshape(p, d)


def exact_decoder(kind, b, sxx, sxy=None, **parameters):
    """argmin_A L(A, B) from its normal equations; least norm."""
    p = b.shape[0]
    syx = sxx if sxy is None else sxy.T
    lam, lam_pi = penalties(kind, p, **parameters)
    c = prefix_weights(kind, p, **parameters)
    system = masked_gram(b @ sxx @ b.T, c) + np.diag(lam) + lam_pi * b @ b.T
    return np.linalg.lstsq(system, (syx @ b.T @ np.diag(c)).T, rcond=1e-12)[0].T


# ---------------------------------------------------------------------------------------------------------------------
# optimizers and training


def optimizer_start(weights):
    """Empty state: two arrays of zeros."""
    return [np.zeros(weights.shape), np.zeros(weights.shape)]


def optimizer_step(kind, weights, gradient, state, rate, iteration, mu=0.9, beta1=0.9, beta2=0.999, eps=1e-8):
    """New weights after one step of sgd, momentum, nesterov or adam; `state` changes in place; iteration from 0."""
    out = weights.copy()
    for index in np.ndindex(*weights.shape):
        g = float(gradient[index])
        if kind == "sgd":
            move = g
        elif kind in ("momentum", "nesterov"):
            state[0][index] = mu * state[0][index] + g
            move = state[0][index] if kind == "momentum" else g + mu * state[0][index]
        elif kind == "adam":
            state[0][index] = beta1 * state[0][index] + (1.0 - beta1) * g
            state[1][index] = beta2 * state[1][index] + (1.0 - beta2) * g * g
            first = state[0][index] / (1.0 - beta1 ** (iteration + 1))
            second = state[1][index] / (1.0 - beta2 ** (iteration + 1))
            move = first / (math.sqrt(second) + eps)
        else:
            raise ValueError(f"unknown optimizer {kind!r}")
        out[index] = weights[index] - rate * move
    return out


def step(
    rule,
    optimizer,
    a,
    b,
    sxx,
    sxy,
    states,
    rate,
    iteration,
    kind="mse",
    coupling="untied",
    sequential=False,
    settings=None,
    **parameters,
):
    """One step of `rule` with `optimizer`; returns the new (A, B).

    states : (state of A, state of B) from `optimizer_start`.  settings : numbers of the optimizer.

    Couplings are those of Kunin's public code: "synchronised" starts from B = A' and moves both by the mean of their
    gradients, "tied" moves the decoder by its own gradient and sets B = A'.
    `sequential` takes the decoder's gradient with the new encoder (Kunin Alg. 1).
    """
    settings = settings or {}
    if rule == "alternating" and coupling != "untied":
        w = exact_decoder(kind, a.T, sxx, sxy, **parameters)
        w = w if coupling == "tied" else (w + exact_decoder(kind, w.T, sxx, sxy, **parameters)) / 2.0
        return w, w.T.copy()
    if rule == "alternating":
        b = exact_encoder(kind, a, sxx, sxy, **parameters)
        return exact_decoder(kind, b, sxx, sxy, **parameters), b
    if rule in ("oja", "gha", "alpha_eigengame", "mu_eigengame"):
        direction = encoder_only_direction(rule, b, sxx)
        b = optimizer_step(optimizer, b, direction, states[1], rate, iteration, **settings)
        b = normalise_rows(b) if "eigengame" in rule else b
        return b.T.copy(), b
    if rule == "rag":
        da, db = rag_direction(a, b, sxx)
    else:
        da, db = gradients(kind, a, b, sxx, sxy, **parameters)
    if coupling == "tied":
        a = optimizer_step(optimizer, a, da, states[0], rate, iteration, **settings)
        return a, a.T.copy()
    if coupling == "synchronised":
        b = optimizer_step(optimizer, b, (db + da.T) / 2.0, states[1], rate, iteration, **settings)
        return b.T.copy(), b
    b = optimizer_step(optimizer, b, db, states[1], rate, iteration, **settings)
    if sequential:
        da, _ = gradients(kind, a, b, sxx, sxy, **parameters)
    a = optimizer_step(optimizer, a, da, states[0], rate, iteration, **settings)
    return a, b


def is_still(rule, a, b, sxx, sxy=None, kind="mse", coupling="untied", tolerance=1e-3, **parameters):
    """Whether every component's gradient is within the tolerance of its own scale  (docs/math.md Eq. 46, 47).

    Component by component, without the allowances for rounding and for components that are zero.
    """
    p = b.shape[0]
    lam_pi, lam, c = 0.0, np.zeros(p), np.ones(p)
    if rule in ("oja", "gha", "alpha_eigengame", "mu_eigengame"):
        moved = [(encoder_only_direction(rule, b, sxx), b)]
        if "eigengame" in rule:
            moved = [(np.array([g - (g @ w) * w / (w @ w) for g, w in zip(*moved[0])]), b)]
    else:
        da, db = rag_direction(a, b, sxx) if rule == "rag" else gradients(kind, a, b, sxx, sxy, **parameters)
        if rule != "rag":
            c, (lam, lam_pi) = prefix_weights(kind, p, **parameters), penalties(kind, p, **parameters)
        moved = [(da.T, a.T), (db, b)]
        if coupling == "tied":
            moved = [(da.T, a.T)]
        elif coupling == "synchronised":
            moved = [((da.T + db) / 2.0, b)]
    for i in range(p):
        squares = float(a[:, i] @ a[:, i]), float(b[i] @ b[i])
        size = c[i] * squares[0] * float(b[i] @ sxx @ b[i]) + lam_pi * squares[0] * squares[1]
        for g, w in moved:
            own = size + lam[i] * float(w[i] @ w[i])
            if math.sqrt(float(g[i] @ g[i]) * float(w[i] @ w[i])) > tolerance * own:
                return False
    return True


def train(rule, optimizer, a, b, sxx, sxy=None, rate=1e-2, iterations=50, **options):
    """Repeat `step`; returns the list of (A, B) after every iteration.  `rate` may be a function of the iteration."""
    states = (optimizer_start(a), optimizer_start(b))
    path = []
    for t in range(iterations):
        a, b = step(rule, optimizer, a, b, sxx, sxy, states, rate(t) if callable(rate) else rate, t, **options)
        path.append((a, b))
    return path


def ada_oja(b, sxx, iterations, start):
    """AdaOja (Henriksen and Ward 2019): the B (p, d) after every iteration, by sums and Gram-Schmidt."""
    squares, path = np.full(len(b), start**2), []
    for t in range(iterations + 1):
        if t:
            step = b @ sxx
            squares += [sum(value**2 for value in row) for row in step]
            b = b + step / np.sqrt(squares)[:, None]
        b = b.copy()
        for i in range(len(b)):
            for j in range(i):
                b[i] -= (b[i] @ b[j]) * b[j]
            b[i] /= math.sqrt(b[i] @ b[i])
        path.append(b)
    return path[1:]


def naive_batch(x, rows, shift, scale, weights):
    """Rows of x as a mini-batch has them: sqrt(weight) scale (x - shift), float64."""
    out = np.zeros((len(rows), x.shape[1]))
    for r, row in enumerate(rows):
        for j in range(x.shape[1]):
            out[r, j] = (float(x[row, j]) - shift[j]) * scale * np.sqrt(weights[row])
    return out
