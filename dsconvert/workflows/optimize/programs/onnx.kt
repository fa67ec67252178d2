/** The file in ONNX Runtime: float32 in and out. */
class Model(context: Context, threads: Int = 1) : AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val session: OrtSession

    init {
        val options = OrtSession.SessionOptions()
        options.setIntraOpNumThreads(threads)
        val stored = context.assets.open(MODEL).use { it.readBytes() }
        session = environment.createSession(stored, options)
    }

    /** Runs one image of stored values. */
    fun run(stored: ByteArray): List<FloatArray> {
        val (name, input) = session.inputInfo.entries.first()
        val sizes = (input.info as TensorInfo).shape.map { if (it < 0) 1 else it.toInt() }
        val values = prepare(stored, sizes.toIntArray())
        val bytes = ByteBuffer.allocateDirect(4 * values.size).order(ByteOrder.nativeOrder())
        val given = bytes.asFloatBuffer().put(values)
        given.rewind()
        val shape = sizes.map { it.toLong() }.toLongArray()
        OnnxTensor.createTensor(environment, given, shape).use { tensor ->
            session.run(mapOf(name to tensor)).use { results ->
                return results.map { (_, output) ->
                    val found = (output as OnnxTensor).floatBuffer
                    FloatArray(found.remaining()).also { found.get(it) }
                }
            }
        }
    }

    override fun close() = session.close()
}
