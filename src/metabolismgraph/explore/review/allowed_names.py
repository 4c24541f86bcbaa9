"""Names of other libraries that a strategy file may use: pure functions of numbers and arrays.

Left out are what makes arrays from buffers, texts or files, types of entries that hold objects, what makes a random
generator or key, memory that is not set, and containers that keep what is written to them.
"""

from __future__ import annotations

from collections.abc import Mapping

_ELEMENTWISE = """
    abs absolute add angle arccos arccosh arcsin arcsinh arctan arctan2 arctanh acos acosh asin asinh atan atan2 atanh
    around bitwise_and bitwise_invert bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor cbrt
    ceil clip conj conjugate copysign cos cosh deg2rad degrees divide divmod equal exp exp2 expm1 fabs float_power
    floor floor_divide fmax fmin fmod frexp gcd greater greater_equal heaviside hypot i0 imag invert isclose iscomplex
    isfinite isin isinf isnan isneginf isposinf isreal lcm ldexp left_shift less less_equal log log10 log1p log2
    logaddexp logaddexp2 logical_and logical_not logical_or logical_xor maximum minimum mod modf multiply nan_to_num
    negative nextafter not_equal positive pow power rad2deg radians real reciprocal remainder right_shift rint round
    sign signbit sin sinc sinh spacing sqrt square subtract tan tanh true_divide trunc unwrap where
"""
_REDUCTIONS = """
    all allclose amax amin any argmax argmin array_equal array_equiv average bincount corrcoef correlate count_nonzero
    cov cumprod cumsum cumulative_prod cumulative_sum diff digitize ediff1d gradient histogram histogram2d
    histogram_bin_edges histogramdd max mean median min nanargmax nanargmin nancumprod nancumsum nanmax nanmean
    nanmedian nanmin nanpercentile nanprod nanquantile nanstd nansum nanvar percentile prod ptp quantile std sum
    trapezoid var
"""
_LINEAR = """
    convolve cross dot einsum einsum_path inner kron matmul matrix_transpose matvec outer tensordot trace vdot vecdot
    vecmat
"""
_SHAPES = """
    append apply_along_axis apply_over_axes argpartition argsort argwhere array_split astype atleast_1d atleast_2d
    atleast_3d block broadcast_arrays broadcast_shapes broadcast_to choose column_stack compress concat concatenate
    copy delete diag diag_indices diag_indices_from diagflat diagonal dsplit dstack expand_dims extract flatnonzero
    flip fliplr flipud hsplit hstack indices insert interp intersect1d ix_ lexsort mask_indices meshgrid moveaxis ndim
    nonzero pad partition permute_dims piecewise ravel ravel_multi_index repeat reshape resize roll rollaxis rot90
    searchsorted select setdiff1d setxor1d shape size sort sort_complex split squeeze stack swapaxes take
    take_along_axis tile transpose trim_zeros tri tril tril_indices tril_indices_from triu triu_indices
    triu_indices_from union1d unique unique_all unique_counts unique_inverse unique_values unravel_index unstack
    vsplit vstack
"""
_MADE = """
    arange array asarray bartlett blackman eye fromfunction full full_like geomspace hamming hanning identity kaiser
    linspace logspace ones ones_like vander zeros zeros_like
"""
_POLYNOMIALS = "poly polyadd polyder polydiv polyfit polyint polymul polysub polyval roots"
_ASKED = "can_cast finfo iinfo iscomplexobj isrealobj isscalar issubdtype iterable"
_CONSTANTS = "e euler_gamma inf mgrid nan newaxis ogrid pi s_"
# Types of entries, none of them of texts or objects, nor of the whole numbers without a sign that keys consist of.
_DTYPES = "bool_ complex64 complex128 complexfloating float16 float32 float64 floating inexact int8 int16 int32 int64"
_DTYPES += " int_ integer number signedinteger"
_ARRAYS = (
    f"{_ELEMENTWISE} {_REDUCTIONS} {_LINEAR} {_SHAPES} {_MADE} {_POLYNOMIALS} {_ASKED} {_CONSTANTS} {_DTYPES} ndarray"
)
_FFT = (
    "fft fft2 fftfreq fftn fftshift hfft ifft ifft2 ifftn ifftshift ihfft irfft irfft2 irfftn rfft rfft2 rfftfreq rfftn"
)
_LINALG = """
    cholesky cond cross det diagonal eig eigh eigvals eigvalsh inv lstsq matmul matrix_norm matrix_power matrix_rank
    matrix_transpose multi_dot norm outer pinv qr slogdet solve svd svdvals tensordot tensorinv tensorsolve trace
    vecdot vector_norm
"""
_LAX = """
    Precision abs acos acosh add argmax argmin asin asinh associative_scan atan atan2 atanh batch_matmul bessel_i0e
    bessel_i1e betainc bitwise_and bitwise_not bitwise_or bitwise_xor broadcast broadcast_in_dim broadcast_shapes
    broadcasted_iota cbrt ceil clamp collapse complex concatenate cond conj conv conv_general_dilated conv_transpose
    convert_element_type cos cosh cumlogsumexp cummax cummin cumprod cumsum custom_linear_solve custom_root digamma
    div dot dot_general dynamic_index_in_dim dynamic_slice dynamic_slice_in_dim dynamic_update_index_in_dim
    dynamic_update_slice dynamic_update_slice_in_dim eq erf erf_inv erfc exp exp2 expand_dims expm1 floor fori_loop
    full full_like gather ge gt igamma igammac imag index_in_dim index_take integer_pow iota is_finite le lgamma log
    log1p logistic lt map max min mul ne neg nextafter pad polygamma pow real reciprocal reduce reduce_and reduce_max
    reduce_min reduce_or reduce_prod reduce_sum reduce_window rem reshape rev round rsqrt scan select select_n sign
    sin sinh slice slice_in_dim sort sort_key_val split sqrt square squeeze stop_gradient sub switch tan tanh tile
    top_k transpose while_loop zeta
"""
_NN = """
    celu elu gelu glu hard_sigmoid hard_silu hard_swish hard_tanh identity leaky_relu log1mexp log_sigmoid log_softmax
    logmeanexp logsumexp mish one_hot relu relu6 selu sigmoid silu soft_sign softmax softplus sparse_plus
    sparse_sigmoid squareplus standardize swish tanh
"""
_INITIALIZERS = """
    constant delta_orthogonal glorot_normal glorot_uniform he_normal he_uniform kaiming_normal kaiming_uniform
    lecun_normal lecun_uniform normal ones orthogonal truncated_normal uniform variance_scaling xavier_normal
    xavier_uniform zeros
"""
# No key, PRNGKey and the like: keys come from data.key.
_RANDOM = """
    ball bernoulli beta binomial categorical cauchy chisquare choice dirichlet double_sided_maxwell exponential f
    fold_in gamma generalized_normal geometric gumbel laplace loggamma logistic lognormal maxwell multinomial
    multivariate_normal normal orthogonal pareto permutation poisson rademacher randint rayleigh split t triangular
    truncated_normal uniform wald weibull_min
"""
_SCIPY_LINALG = """
    block_diag cho_factor cho_solve cholesky circulant companion convolution_matrix det dft eigh eigh_tridiagonal expm
    expm_frechet funm hadamard hankel hilbert inv lu lu_factor lu_solve polar qr qr_multiply rsf2csf schur solve
    solve_sylvester solve_triangular sqrtm svd toeplitz
"""
_SPECIAL = """
    bernoulli bessel_jn beta betainc betaln boxcox boxcox1p comb dawsn digamma entr erf erfc erfcx erfinv exp1 expi
    expit expn factorial fresnel gamma gammainc gammaincc gammaln gammasgn hyp1f1 hyp2f1 i0 i0e i1 i1e kl_div log_ndtr
    log_softmax loggamma logit logsumexp multigammaln ndtr ndtri owens_t poch polygamma rel_entr sici softmax spence
    wofz xlog1py xlogy zeta
"""
_DISTRIBUTIONS = """
    bernoulli beta betabinom binom cauchy chi2 dirichlet expon gamma gennorm geom gumbel_l gumbel_r laplace logistic
    multinomial multivariate_normal nbinom norm pareto poisson t truncnorm uniform vonmises wrapcauchy
"""
_OF_A_DISTRIBUTION = "cdf entropy isf logcdf logpdf logpmf logsf pdf pmf ppf sf"
_TREE = """
    all broadcast flatten flatten_with_path leaves leaves_with_path map map_with_path reduce reduce_associative
    structure transpose unflatten
"""
_LAYERS = """
    AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d
    AvgPool1d AvgPool2d AvgPool3d Conv Conv1d Conv2d Conv3d ConvTranspose ConvTranspose1d ConvTranspose2d
    ConvTranspose3d Dropout Embedding GRUCell GroupNorm Identity LSTMCell Lambda LayerNorm Linear MLP MaxPool1d
    MaxPool2d MaxPool3d MultiheadAttention PReLU RMSNorm Sequential WeightNorm
    inference_mode
"""
_LOSSES = """
    convex_kl_divergence cosine_distance cosine_similarity generalized_kl_divergence hinge_loss huber_loss
    kl_divergence l2_loss log_cosh ntxent safe_softmax_cross_entropy sigmoid_binary_cross_entropy sigmoid_focal_loss
    smooth_labels softmax_cross_entropy softmax_cross_entropy_with_integer_labels squared_error
"""
_SCHEDULES = """
    constant_schedule cosine_decay_schedule cosine_onecycle_schedule exponential_decay inject_hyperparams
    join_schedules linear_onecycle_schedule linear_schedule piecewise_constant_schedule piecewise_interpolate_schedule
    polynomial_schedule sgdr_schedule warmup_constant_schedule warmup_cosine_decay_schedule
    warmup_exponential_decay_schedule
"""
_OPTIMISERS = """
    EmptyState GradientTransformation GradientTransformationExtraArgs OptState Params Schedule Updates adabelief
    adadelta adafactor adagrad adam adamax adamaxw adamw adan adaptive_grad_clip add_decayed_weights amsgrad
    apply_every apply_if_finite apply_updates bias_correction centralize chain clip clip_by_block_rms
    clip_by_global_norm ema fromage global_norm identity incremental_update keep_params_nonnegative lamb lars lbfgs
    lion lookahead masked multi_transform nadam nadamw named_chain nnls normalize_by_update_norm novograd
    optimistic_gradient_descent partition periodic_update polyak_sgd power_iteration radam rmsprop rprop safe_norm
    safe_root_mean_squares scale scale_by_adadelta scale_by_adam scale_by_adamax scale_by_adan scale_by_amsgrad
    scale_by_backtracking_linesearch scale_by_belief scale_by_distance_over_gradients scale_by_factored_rms
    scale_by_lbfgs scale_by_learning_rate scale_by_lion scale_by_novograd scale_by_optimistic_gradient
    scale_by_param_block_norm scale_by_param_block_rms scale_by_polyak scale_by_radam scale_by_rms scale_by_rprop
    scale_by_rss scale_by_schedule scale_by_sign scale_by_sm3 scale_by_stddev scale_by_trust_ratio scale_by_yogi
    scale_by_zoom_linesearch scale_gradient set_to_zero sgd sign_sgd signum sm3 stateless trace update_infinity_moment
    update_moment value_and_grad_from_state yogi zero_nans
"""
_PROJECTIONS = """
    projection_box projection_halfspace projection_hypercube projection_hyperplane projection_l1_ball
    projection_l1_sphere projection_l2_ball projection_l2_sphere projection_linf_ball projection_non_negative
    projection_simplex projection_vector
"""
_ITERTOOLS = """
    accumulate chain combinations combinations_with_replacement compress count cycle dropwhile filterfalse groupby
    islice pairwise permutations product repeat starmap takewhile tee zip_longest
"""
_MATH = """
    acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 expm1
    fabs factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma log
    log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt tan tanh tau trunc ulp
"""
_LISTED = {
    "itertools": _ITERTOOLS,
    "math": _MATH,
    "numpy": f"{_ARRAYS} asanyarray asarray_chkfinite ascontiguousarray errstate fill_diagonal fix",
    "numpy.fft": _FFT,
    "numpy.linalg": f"{_LINALG} LinAlgError",
    # Not the classes, whose domain and window are arrays that all share.
    "numpy.polynomial": "",
    "numpy.polynomial.chebyshev": "chebder chebfit chebgauss chebint chebpts1 chebpts2 chebval chebvander",
    "numpy.polynomial.hermite": "hermder hermfit hermgauss hermint hermval hermvander",
    "numpy.polynomial.hermite_e": "hermeder hermefit hermegauss hermeint hermeval hermevander",
    "numpy.polynomial.laguerre": "lagder lagfit laggauss lagint lagval lagvander",
    "numpy.polynomial.legendre": "legder legfit leggauss legint legval legvander",
    "numpy.polynomial.polynomial": "polyadd polyder polyfit polyint polymul polyroots polysub polyval polyvander",
    "jax.lax": _LAX,
    "jax.nn": _NN,
    "jax.nn.initializers": _INITIALIZERS,
    "jax.numpy": f"{_ARRAYS} empty empty_like fill_diagonal put_along_axis vectorize",
    "jax.numpy.fft": _FFT,
    "jax.numpy.linalg": _LINALG,
    "jax.ops": "segment_max segment_min segment_prod segment_sum",
    "jax.random": _RANDOM,
    "jax.scipy": "",
    "jax.scipy.linalg": _SCIPY_LINALG,
    "jax.scipy.special": _SPECIAL,
    "jax.scipy.stats": "mode rankdata sem",
    **{f"jax.scipy.stats.{name}": _OF_A_DISTRIBUTION for name in _DISTRIBUTIONS.split()},
    "jax.tree": _TREE,
    "equinox.nn": _LAYERS,
    "optax": f"{_OPTIMISERS} {_LOSSES} {_SCHEDULES}",
    "optax.losses": _LOSSES,
    "optax.projections": _PROJECTIONS,
    "optax.schedules": _SCHEDULES,
}
# Modules of functions on numbers and arrays, with the names that may be used.
LIBRARIES: Mapping[str, frozenset[str]] = {module: frozenset(names.split()) for module, names in _LISTED.items()}

# What to write in place of a name that is missed most.
INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(("numpy.empty", "numpy.empty_like"), "zeros has entries that are set"),
    **dict.fromkeys(("numpy.c_", "jax.numpy.c_"), "write column_stack"),
    **dict.fromkeys(("numpy.r_", "jax.numpy.r_"), "write concatenate"),
    **dict.fromkeys(("numpy.dtype", "jax.numpy.dtype"), "write jnp.float64 or x.dtype"),
    **dict.fromkeys(("numpy.object_", "jax.numpy.object_"), "arrays hold numbers"),
    "numpy.polynomial.Polynomial": "write numpy.polyfit and polyval",
    "numpy.random": "draw random numbers by jax.random, from data.key",
    **dict.fromkeys((f"jax.random.{name}" for name in ("PRNGKey", "key", "wrap_key_data", "clone")), "use data.key"),
}

# Types of entries, as attributes of numpy and jax.numpy and as built-in names.
DTYPES = frozenset(_DTYPES.split())
BUILTIN_DTYPES = frozenset({"bool", "complex", "float", "int"})
# Names that are types in annotations and of isinstance, and that nothing may be made of.
ONLY_TYPES = frozenset({"numpy.ndarray", "jax.numpy.ndarray"})

# Where the type of entries stands among the arguments, for functions that take it without its keyword.
_AT = {
    1: "array asanyarray asarray asarray_chkfinite ascontiguousarray astype convert_element_type empty "
    "empty_like identity indices ones ones_like zeros zeros_like",
    2: "cumprod cumsum full full_like mean nancumprod nancumsum nanmean nanprod nanstd nansum nanvar prod std sum var",
    3: "arange eye tri",
    4: "geomspace trace",
    5: "linspace logspace",
}
DTYPE_AT: Mapping[str, int] = {name: at for at, names in _AT.items() for name in names.split()}
# The same of methods of arrays and of `np.add` and the like.
_OF_METHODS = {0: "astype", 1: "cumprod cumsum mean prod std sum var", 2: "accumulate reduce", 3: "reduceat"}
DTYPE_OF_METHOD: Mapping[str, int] = {name: at for at, names in _OF_METHODS.items() for name in names.split()}
DTYPE_KEYWORDS = frozenset(
    {"dtype", "new_dtype", "param_dtype", "mu_dtype", "accumulator_dtype", "preferred_element_type"}
)
# Arguments by which a function would compile otherwise, read memory as something else, or change attributes.
KEYWORDS = frozenset({"call", "compiler_options", "otypes", "refcheck", "sig", "signature", "update", "xla_metadata"})
# Functions that are called by their names only, where their arguments are seen.
_MAKERS = f"{_AT[1]} full full_like pad {_AT[3]} {_AT[5]} geomspace"
NOT_PASSED_ON = frozenset(f"numpy.{name}" for name in _MAKERS.split())
# What may be told where to act, since the other entries are set.
_WHERE = "all any average max mean min nanmax nanmean nanmin nanprod nanstd nansum nanvar prod std sum var"
WITH_WHERE = frozenset(_WHERE.split())
_SET = "array asarray copy full full_like ones ones_like zeros zeros_like"
SET_BY = frozenset(f"numpy.{name}" for name in _SET.split())

# Functions that compile, and the arguments that they may be given besides the function.
COMPILERS: Mapping[str, frozenset[str]] = {
    "jax.jit": frozenset({"static_argnums", "static_argnames", "donate_argnums", "donate_argnames"}),
    "equinox.filter_jit": frozenset({"donate"}),
}

# Attributes that arrays have and that do no more than numbers do.
_OF_ARRAYS = """
    T all any argmax argmin argpartition argsort astype at block_until_ready choose clip compress conj conjugate copy
    cumprod cumsum diagonal dot dtype fill flat flatten imag item itemsize mT max mean min nbytes ndim nonzero
    partition prod ptp ravel real repeat reshape round searchsorted shape size sort squeeze std sum swapaxes take
    tolist transpose var weak_type
"""
ARRAY_ATTRIBUTES = frozenset(_OF_ARRAYS.split())
# Refused attributes of any object: memory, files, code, frames, environment, global settings, compilers, registries.
_REFUSED = """
    DataSource dump dumps frombuffer fromfile fromregex genfromtxt load loads loadtxt memmap open open_memmap read
    save savetxt savez savez_compressed tofile write unsafe_buffer_pointer ctypes setflags flags format format_map
    from_dlpack to_dlpack dlpack callback io_callback pure_callback host_callback debug_callback debug ffi ffi_call
    export profiler experimental interpreters infeed outfeed set_printoptions set_string_function seterr seterrcall
    setbufsize mro bmat frompyfunc show_config show_runtime info get_include test

    view data getfield setfield newbyteorder byteswap cast obj base tobytes strides resize put device devices
    to_device descr fields subdtype type metadata array_type hasobject release tostring addressable_data
    addressable_shards aval clone copy_to_host_async delete device_buffer device_buffers global_shards platform
    sharding traceback client process_index committed is_fully_addressable is_fully_replicated on_device_size_in_bytes
    is_deleted is_ready

    lower compile trace compiler_ir as_text cost_analysis memory_analysis runtime_executable clear_caches clear_cache
    cache_clear cache_info cache_parameters compose node_data from_node_data_and_children
    make_from_node_data_and_children from_iterable_tree serialize_using_proto deserialize_using_proto flatten_up_to
    walk pickle environ getenv system popen modules

    f_back f_builtins f_code f_globals f_locals f_lineno f_trace tb_frame tb_next tb_lasti gi_frame gi_code
    gi_yieldfrom gi_running gi_suspended cr_frame cr_code cr_await cr_origin cr_running ag_frame ag_code ag_await
    ag_running func_globals func_code func_closure func_defaults co_code co_consts co_names with_traceback add_note
    throw

    apply_typevars_map rebuild_annotation from_annotation from_annotated_attribute from_field merge_field_infos
    metadata_lookup
    dtypes _field_defaults _attributes_set _setattr_handler _copy_and_set_values _calculate_keys _iter _get_value
    _npy_value _value _arrays _cache_size _fun _abc_impl
    register unregister keywords defjvp defvjp defjvps def_partial_eval parse_file parse_raw parse_obj construct
    from_orm update_forward_refs schema schema_json validate json model_computed_fields model_config model_copy
    model_construct
    model_dump_json model_extra model_fields model_fields_set model_json_schema model_parametrized_name
    model_post_init model_rebuild model_validate model_validate_json model_validate_strings
"""
ATTRIBUTES = frozenset(_REFUSED.split())
